"""The status page of a running daemon, in a real browser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailer.demo.stage.player import play
from tests.e2e.browser import CHROMIUM, MISSING, Page, open_browser
from tests.e2e.daemon import Daemon, langfuse_settings, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import place
from tests.fakes.langfuse import FakeLangfuse, answer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_STATUS_TRACES": "content",
}
ATTACK = "<img src=x onerror=document.title='owned'> <script>document.title='owned'</script>" + 200 * "m"


@asynccontextmanager
async def page_of(
    databases: Databases, fake: FakeLangfuse, directory: Path
) -> AsyncIterator[tuple[Daemon, Page]]:
    settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
    async with (
        start(settings, directory=directory) as daemon,
        open_browser(directory / "profile") as page,
    ):
        await daemon.wait_until_ready()
        await page.show(width=1280)
        await page.open(f"http://127.0.0.1:{await daemon.port()}/")
        yield daemon, page


def says(text: str, place: str = "body") -> str:
    return f"document.querySelector({place!r})?.innerText.includes({text!r})"


async def test_it_shows_turns_as_they_come_without_a_word_from_any_other_host(
    databases: Databases, tmp_path: Path
) -> None:
    """Loads, updates by itself, shows the tree of the last traces, complains about nothing."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake, page_of(databases, fake, tmp_path) as (daemon, page):
        await page.wait_for(says("streaming", "#state"))
        assert await page.evaluate(says("No trace has been acknowledged yet"))
        await play(traffic.recording, databases.source, speed=None)
        await page.wait_for("document.querySelectorAll('#traces-list > li').length")
        await page.wait_for(says("complete", "#turns"))
        await page.wait_for("document.querySelectorAll('.tree .type[data-type=generation]').length")
        question = next(turn.question for turn in traffic.finished_turns() if turn.question)
        await page.wait_for(says(question[:40], "#traces"))
        port = await daemon.port()

        assert page.complaints == []
        assert {url.split("/")[2] for url in page.requested} == {f"127.0.0.1:{port}"}


async def test_it_works_by_the_keyboard_and_on_a_phone_and_in_the_dark(
    databases: Databases, tmp_path: Path
) -> None:
    """The first Tab skips to the figures; Enter pauses; nothing is wider than the screen."""
    async with FakeLangfuse() as fake, page_of(databases, fake, tmp_path) as (_, page):
        await page.wait_for(says("streaming", "#state"))
        assert await page.tab() == "A"
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the figures"
        assert await page.tab() == "pause"
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.press("Enter", 13)
        await page.wait_for("document.getElementById('pause').getAttribute('aria-pressed') === 'true'")
        before = await page.evaluate("document.getElementById('as-of').textContent")
        light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        await page.show(width=360, scheme="dark")
        await page.wait_for("window.innerWidth === 360")

        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        # Paused is paused; Enter again goes on.
        assert await page.evaluate("document.getElementById('as-of').textContent") == before
        await page.press("Enter", 13)
        await page.wait_for(f"document.getElementById('as-of').textContent !== {before!r}")
        assert page.complaints == []


def poison(value: object) -> None:
    """Let the texts and the model of a document be what an attacker would write."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("text", "model", "error") and isinstance(inner, str) and inner:
                value[name] = ATTACK
            else:
                poison(inner)
    elif isinstance(value, list):
        for inner in value:
            poison(inner)


async def test_what_a_chat_user_wrote_is_text_and_nothing_else(databases: Databases, tmp_path: Path) -> None:
    traffic = place("01-single-turn", datetime.now(UTC))
    for event in traffic.recording.events:
        poison(event.full_document)
    async with FakeLangfuse() as fake, page_of(databases, fake, tmp_path) as (_, page):
        await play(traffic.recording, databases.source, speed=None)
        await page.wait_for(says("<script>document.title", "#traces"))

        assert "owned" not in await page.evaluate("document.title")
        assert await page.evaluate("document.querySelectorAll('#traces img, #traces script').length") == 0
        # However long a name is, nothing is wider than the screen.
        await page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        await page.show(width=360)
        await page.wait_for("window.innerWidth === 360")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.complaints == []


async def test_trouble_stands_at_the_top_and_the_end_of_the_daemon_too(
    databases: Databases, tmp_path: Path
) -> None:
    """Refused keys are named with the remedy; a daemon that is gone is said to be gone."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake, page_of(databases, fake, tmp_path) as (daemon, page):
        fake.faults.add(answer(401, times=None))
        await play(traffic.recording, databases.source, speed=None)
        await page.wait_for(says("LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY", "#attention"))
        await page.wait_for(says("delivery paused (error)", "#errors"))
        assert await page.evaluate("document.getElementById('state').dataset.tone") == "bad"
        await daemon.kill()
        await page.wait_for(says("The daemon does not answer", "#silent"))


async def test_several_destinations_are_shown_with_what_is_kept_for_one_that_is_away(
    databases: Databases, tmp_path: Path
) -> None:
    """The others go on. With one destination there is no such table."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        file = tmp_path / "destinations.toml"
        file.write_text(
            f'[destinations.default]\nkind = "langfuse"\nhost = "{fake.url}"\npublic_key = "{fake.public_key}"\n'
            f'secret_key = "{fake.secret_key}"\n[destinations.collector]\nkind = "otlp"\nendpoint = "http://127.0.0.1:1"\n',
            encoding="utf-8",
        )
        settings = {**databases.settings, **SETTINGS, "TAILER_DESTINATIONS": str(file)}
        async with (
            start(settings, directory=tmp_path) as daemon,
            open_browser(tmp_path / "profile") as page,
        ):
            await page.show(width=1280)
            await page.open(f"http://127.0.0.1:{await daemon.port()}/")
            await page.wait_for(says("streaming", "#state"))
            await play(traffic.recording, databases.source, speed=None)
            await page.wait_for(says("accepts nothing", "#destinations"))
            rows = await page.evaluate(
                "[...document.querySelectorAll('#destinations tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
            )
            attention = await page.evaluate("document.querySelector('#attention-list').innerText")
            complaints = page.complaints

    states = {row[0]: row[1] for row in rows}
    assert states == {"default": "accepts", "collector": "accepts nothing"}
    assert "estination collector has accepted nothing" in attention
    assert complaints == []
