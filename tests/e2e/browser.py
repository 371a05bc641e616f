"""A real headless Chromium, driven by its DevTools protocol: a page, what it asked for, and what it complained
about."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

CHROMIUM: Final = shutil.which("chromium")
MISSING: Final = "needs Debian's package chromium"
_SWITCHES: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_POLL_SECONDS: Final = 0.05
_PATIENCE_SECONDS: Final = 30.0


class Page:
    """One tab. `requested` holds the URLs it asked for, `complaints` the errors and warnings of its console."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requested: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says, until the connection ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Network.requestWillBeSent":
                self.requested.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] != "verbose":
                self.complaints.append(str(said["params"]["entry"]))
            elif said["method"] == "Runtime.consoleAPICalled":
                self.complaints.append(str(said["params"]))

    async def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command of the protocol; AssertionError when the browser refuses it."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_PATIENCE_SECONDS):
            answer = await self._answers[number]
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Go to a page."""
        await self.command("Page.navigate", url=url)

    async def show(self, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """The size of the window, and whether the system is light or dark."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        await self.command(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        value = None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not value:
                    value = await self.evaluate(expression)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            shown = await self.evaluate("document.body.innerText")
            raise TimeoutError(f"never true: {expression}; the page says {shown!r}") from None
        return value

    async def press(self, key: str, code: int) -> None:
        """A key, down and up."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    async def tab(self) -> str:
        """The Tab key; what has the focus then."""
        await self.press("Tab", 9)
        return str(await self.evaluate("document.activeElement.id || document.activeElement.tagName"))


@asynccontextmanager
async def open_browser(directory: Path) -> AsyncIterator[Page]:
    """A browser that nobody used before; ended with its last page."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, *_SWITCHES, f"--user-data-dir={directory}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _read_port(directory / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
            async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                for domain in ("Page", "Network", "Runtime", "Log"):
                    await page.command(f"{domain}.enable")
                yield page
        await listening
    finally:
        process.kill()
        await process.wait()


async def _read_port(file: Path, process: asyncio.subprocess.Process) -> int:
    """The port that the browser chose; it writes it down once it listens."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            assert process.returncode is None, "the browser has ended"
            words = await asyncio.to_thread(_words, file)
            if len(words) > 1:
                return int(words[0])
            await asyncio.sleep(_POLL_SECONDS)


def _words(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split() if file.is_file() else []
