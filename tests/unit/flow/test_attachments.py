"""Files of turns that cannot be uploaded just now: waited for, and given up only where the files alone are in
trouble."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tailer.core.identity import DocumentKey, turn_trace_id
from tailer.events import DeliveryPaused, DeliveryResumed, MediaLeftOut, MediaRetried
from tailer.flow.sending.outcomes import Refused, Retry, StorageAway
from tests.memory import MemoryMedia
from tests.rows import answer, question
from tests.unit.flow.destinations_file import write_destinations
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene, until

PICTURE = {"file_id": "f1", "filename": "red.png", "type": "image/png", "filepath": "/images/red.png"}


def ask(scene: Scene, number: int, *, with_picture: bool = False) -> DocumentKey:
    own: dict[str, Any] = {"conversationId": f"c{number}"}
    files: dict[str, Any] = {"files": [PICTURE]} if with_picture else {}
    scene.librechat.insert("messages", question(f"q{number}", None, **own, **files))
    (key,) = scene.librechat.insert("messages", answer(f"a{number}", f"q{number}", **own))
    return key


async def test_files_are_waited_for_while_langfuse_is_away_however_long(scene: Scene) -> None:
    media = MemoryMedia()
    media.trouble, scene.destination.is_away = Retry("connection"), True
    async with running(scene, media=media) as run:
        ask(scene, 1, with_picture=True)
        ask(scene, 2)
        await asyncio.sleep(8 * 3600)
        media.trouble, scene.destination.is_away = None, False
        await run.until_done()

        assert run.events.of(MediaLeftOut) == []
    assert [len(files) for _, files in media.published] == [1]
    assert len(scene.destination.trace_ids()) == 2


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Retry("http_500"), "unavailable"),
        (StorageAway("http_503"), "unavailable"),
        (Refused("http_403"), "refused"),
    ],
)
async def test_a_turn_goes_without_files_that_alone_are_in_trouble_for_long(
    scene: Scene, trouble: Retry | Refused | StorageAway, reason: str
) -> None:
    """Other turns are taken all the while; minutes later this one is sent too, and the files are counted."""
    media = MemoryMedia()
    media.trouble = trouble
    async with running(scene, media=media) as run:
        ask(scene, 1, with_picture=True)
        await asyncio.sleep(20)
        ask(scene, 2)
        await until(lambda: turn_trace_id("a2") in scene.destination.trace_ids())
        assert turn_trace_id("a1") not in scene.destination.trace_ids()
        await asyncio.sleep(600)
        await run.until_done()

        assert run.events.of(MediaLeftOut) == [MediaLeftOut(reason)]
    assert turn_trace_id("a1") in scene.destination.trace_ids()


async def test_a_storage_that_is_away_for_a_minute_costs_no_file(scene: Scene) -> None:
    media = MemoryMedia()
    media.trouble = StorageAway("http_503")
    async with running(scene, media=media) as run:
        ask(scene, 1, with_picture=True)
        await asyncio.sleep(10)
        media.trouble = None
        await run.until_done()

        assert run.events.of(MediaLeftOut) == []
    assert [len(files) for _, files in media.published] == [1]


async def test_what_keeps_a_file_from_being_taken_is_said_with_its_remedy(scene: Scene) -> None:
    media = MemoryMedia()
    media.trouble = StorageAway("ConnectError", "nothing listens there")
    async with running(scene, media=media) as run:
        ask(scene, 1, with_picture=True)
        await until(lambda: bool(run.events.of(MediaRetried)))
        media.trouble = None
        await run.until_done()
        retried = run.events.of(MediaRetried)[0]

    assert (retried.reason, retried.attempt) == ("ConnectError: nothing listens there", 1)


async def test_keys_that_are_refused_for_files_pause_like_all_others(scene: Scene) -> None:
    media = MemoryMedia()
    media.trouble = Refused("http_401")
    async with running(scene, media=media) as run:
        ask(scene, 1, with_picture=True)
        await until(lambda: bool(run.events.of(DeliveryPaused)))
        await asyncio.sleep(3600)
        media.trouble = None
        await run.until_done()

        assert (len(run.events.of(DeliveryPaused)), len(run.events.of(DeliveryResumed))) == (1, 1)
        assert run.events.of(MediaLeftOut) == []


async def test_a_few_uploads_run_at_a_time(scene: Scene) -> None:
    """Neither one after another, nor a whole round's files in memory."""
    media = MemoryMedia()
    media.seconds = 10.0
    async with running(scene, media=media) as run:
        for number in range(12):
            ask(scene, number, with_picture=True)
        await run.until_done()

    assert media.most_at_once == 4


async def test_a_storage_that_takes_nothing_holds_up_no_turn_without_files_for_long(scene: Scene) -> None:
    """Each upload takes half a minute to fail, and there are many of them."""
    media = MemoryMedia()
    media.trouble, media.seconds = StorageAway("ReadTimeout"), 30.0
    async with running(scene, media=media) as run:
        for number in range(60):
            ask(scene, number, with_picture=True)
        await asyncio.sleep(20)
        ask(scene, 60)
        await until(lambda: turn_trace_id("a60") in scene.destination.trace_ids(), seconds=60)
        media.trouble, media.seconds = None, 0.0
        await run.until_done()

        assert run.events.of(MediaLeftOut) == []
    assert sum(len(files) for _, files in media.published) == 60


async def test_a_storage_that_does_not_answer_holds_up_no_other_destination(
    scene: Scene, tmp_path: Path
) -> None:
    """For five seconds at a time at most; what has pictures waits for the one that takes them."""
    names = ("default", "other")
    plan = write_destinations(tmp_path / "destinations.toml", names, otherwise=names)
    media = MemoryMedia()
    media.seconds = 3600.0
    async with running(scene, media=media, destinations_file=plan) as run:
        for number in range(8):
            ask(scene, number, with_picture=True)
        await asyncio.sleep(4)
        ask(scene, 8)
        await until(lambda: turn_trace_id("a8") in scene.at("other").trace_ids(), seconds=12)
        assert len(scene.at("other").trace_ids()) == 9
        await asyncio.sleep(60)
        media.seconds = 0.0
        await run.until_done()
        await until(lambda: len(scene.destination.trace_ids()) == 9, seconds=600)

        assert run.events.of(MediaLeftOut) == []
