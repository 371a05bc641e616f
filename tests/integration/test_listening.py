"""On which addresses the HTTP port answers: with IPv4, with IPv6, with both, and where a machine lacks one."""

import errno
import json
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Thread

import httpx
import pytest

from tailer.cli import execute
from tailer.errors import SettingsError
from tailer.health import Health
from tailer.metrics import Metrics
from tailer.web.listening import local_addresses, open_sockets
from tailer.web.server import WebServer

EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - what an operator may write


def serve(host: str, port: int = 0) -> WebServer:
    health = Health(started_seconds=0.0, loop_seconds=0.0)
    return WebServer(host, port, health, Metrics("1").registry, monotonic=lambda: 1.0)


async def answers(address: str, port: int) -> bool:
    url = f"http://[{address}]:{port}/livez" if ":" in address else f"http://{address}:{port}/livez"
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.ConnectError:
            return False


def own_addresses() -> Sequence[str]:
    """What this machine is called by others: its addresses that are no loopback."""
    found = []
    for family, peer in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((peer, 9))
            except OSError:
                continue
            found.append(str(probe.getsockname()[0]))
    return found


@pytest.mark.parametrize(
    ("host", "reached", "refused"),
    [
        ("localhost", ["127.0.0.1", "::1"], []),
        ("LOCALHOST", ["127.0.0.1", "::1"], []),
        ("::", ["127.0.0.1", "::1"], []),
        (EVERY_IPV4, ["127.0.0.1"], ["::1"]),
        ("127.0.0.1", ["127.0.0.1"], ["::1"]),
        ("::1", ["::1"], ["127.0.0.1"]),
    ],
)
async def test_each_address_is_reached_in_the_families_that_it_names(
    host: str, reached: list[str], refused: list[str]
) -> None:
    async with serve(host) as server:
        assert [await answers(address, server.port) for address in reached] == [True] * len(reached)
        assert [await answers(address, server.port) for address in refused] == [False] * len(refused)


async def test_only_every_address_is_reached_from_another_machine() -> None:
    """The default shows nothing to others; the image's `::` does, in both families on one port."""
    others = own_addresses()
    if not others:
        pytest.skip("this machine has no address but its loopbacks")
    async with serve("localhost") as closed, serve("::") as opened:
        assert [await answers(address, closed.port) for address in others] == [False] * len(others)
        assert [await answers(address, opened.port) for address in others] == [True] * len(others)


async def test_what_it_listens_on_is_told_as_addresses() -> None:
    async with serve("localhost") as server:
        assert list(server.addresses) == [f"127.0.0.1:{server.port}", f"[::1]:{server.port}"]
    async with serve("::") as server:
        assert list(server.addresses) == [f"[::]:{server.port}"]


@pytest.mark.parametrize("failure", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
@pytest.mark.parametrize(
    ("lacking", "host", "address"),
    [
        (socket.AF_INET6, "localhost", "127.0.0.1"),
        (socket.AF_INET6, "::", EVERY_IPV4),
        (socket.AF_INET, "localhost", "::1"),
        (socket.AF_INET, "::", "::"),
    ],
)
def test_a_family_that_the_machine_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch, lacking: int, host: str, address: str, failure: int
) -> None:
    """Without the family there is no socket of it; with the family switched off there is, and no address for it."""

    class Lacking(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == lacking and failure == errno.EAFNOSUPPORT:
                raise OSError(failure, "not supported")
            super().__init__(family, kind)

        def bind(self, where: object) -> None:
            if self.family == lacking:
                raise OSError(failure, "not available")
            super().bind(where)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Lacking)
    with ExitStack() as opened:
        sockets = [opened.enter_context(found) for found in open_sockets(host, 0)]
        assert [found.getsockname()[0] for found in sockets] == [address]


def test_a_free_port_is_free_in_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port that IPv4 was given may be taken in IPv6: another one is tried, and nothing is left open."""
    opened: list[socket.socket] = []

    class Taken(socket.socket):
        def bind(self, where: object) -> None:
            opened.append(self)
            if self.family == socket.AF_INET6 and len(opened) == 2:
                raise OSError(errno.EADDRINUSE, "taken")
            super().bind(where)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Taken)
    with ExitStack() as stack:
        first, second = (stack.enter_context(found) for found in open_sockets("localhost", 0))
        assert first.getsockname()[1] == second.getsockname()[1]
        assert [found.fileno() for found in opened[:2]] == [-1, -1]


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("host", ["localhost", "::"])
async def test_a_port_that_is_taken_in_one_family_is_refused(taken: str, host: str) -> None:
    """Half a listener would answer some and leave the others to a stranger."""
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(SettingsError, match="choose another TAILER_HTTP_PORT"):
            async with serve(host, port):
                pass


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "no-such-name.invalid"])
async def test_an_address_of_another_machine_is_told_with_the_setting(host: str) -> None:
    with pytest.raises(SettingsError, match="set TAILER_HTTP_HOST to an address of this machine"):
        async with serve(host):
            pass


@pytest.mark.parametrize(
    ("host", "answering"),
    [("localhost", "127.0.0.1"), ("localhost", "::1"), ("::", "127.0.0.1"), ("::", "::1"), ("[::1]", "::1"),
     (EVERY_IPV4, "127.0.0.1")],
)  # fmt: skip
def test_the_healthcheck_finds_the_daemon_in_the_family_that_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, answering: str
) -> None:
    """A daemon that fell back to one family is asked there."""
    monkeypatch.setenv("TAILER_MONGO_URI", "mongodb://nowhere.invalid/LibreChat")
    monkeypatch.setenv("TAILER_HTTP_HOST", host)
    family = socket.AF_INET6 if ":" in answering else socket.AF_INET
    with socket.create_server((answering, 0), family=family) as listener, ExitStack() as stack:
        monkeypatch.setenv("TAILER_HTTP_PORT", str(listener.getsockname()[1]))
        stack.enter_context(AnsweringOnce(listener))
        assert execute(["healthcheck"]) == 0
    assert capsys.readouterr().out == "ready: streaming\n"


class AnsweringOnce:
    """Answers one request on a listener with a ready daemon's words."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def __enter__(self) -> None:
        self._thread = Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(4096)
            body = json.dumps({"status": "ready", "state": "streaming"})
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(f"{head}{body}".encode())

    def __exit__(self, *error: object) -> None:
        self._thread.join()


def test_a_machine_finds_itself_wherever_it_listens() -> None:
    assert list(local_addresses("localhost")) == ["127.0.0.1", "::1"]
    assert list(local_addresses("::")) == ["::1", "127.0.0.1"]
    assert list(local_addresses(EVERY_IPV4)) == ["127.0.0.1"]
    assert list(local_addresses("10.1.2.3")) == ["10.1.2.3"]
