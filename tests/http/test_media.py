"""Images and files as Langfuse media: uploaded before their trace, referred to, and never without being asked for."""

import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailer.core.identity import observation_id, turn_trace_id
from tailer.core.librechat.attached_files import AttachedFile
from tailer.events import Event, MediaLeftOut
from tailer.flow.sending.outcomes import Refused, Retry, StorageAway
from tailer.langfuse.connection import Credentials, LangfuseConnection
from tailer.langfuse.media import LangfuseMedia, MediaOptions
from tests.fakes.langfuse import FakeLangfuse, Fault, Route, answer, cut
from tests.fakes.langfuse.media import MediaStore

TRACE = turn_trace_id("0d5a9a1e")
ROOT = observation_id("0d5a9a1e", "root")
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as fake:
        yield fake


@pytest.fixture
async def connection(fake: FakeLangfuse) -> AsyncIterator[LangfuseConnection]:
    credentials = Credentials(fake.url, "pk-lf-test", "sk-lf-test")
    async with LangfuseConnection(
        credentials, request_timeout=timedelta(seconds=5), connections=2
    ) as connection:
        yield connection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """LibreChat's files as mounted beside the tailer, with something outside that is nobody's business."""
    root = tmp_path / "files"
    (root / "images" / "ada").mkdir(parents=True)
    (root / "images" / "ada" / "red.png").write_bytes(PICTURE)
    (root / "images" / "ada" / "large.png").write_bytes(PICTURE * 20)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    return root


def media_of(connection: LangfuseConnection, root: Path) -> tuple[LangfuseMedia, list[Event]]:
    events: list[Event] = []
    return LangfuseMedia(connection, MediaOptions(root, largest_bytes=200), events.append), events


def picture(path: str, media_type: str = "image/png") -> AttachedFile:
    return AttachedFile("455cf6a7", "red.png", media_type, None, path)


async def test_a_picture_is_uploaded_with_its_bytes_and_referred_to(
    fake: FakeLangfuse, connection: LangfuseConnection, root: Path
) -> None:
    """Langfuse has the very bytes, and the reference is in its own notation."""
    media, events = media_of(connection, root)

    references = await media.publish(TRACE, ROOT, [picture("/images/ada/red.png")])

    ((media_id, content),) = fake.media.uploaded.items()
    assert content == PICTURE
    assert references == (f"@@@langfuseMedia:type=image/png|id={media_id}|source=bytes@@@",)
    assert fake.media.done == {media_id: 200}
    assert fake.media.announced[media_id]["observationId"] == ROOT
    assert events == []


async def test_the_same_picture_is_uploaded_once(
    fake: FakeLangfuse, connection: LangfuseConnection, root: Path
) -> None:
    """A retry announces it again and has nothing to upload."""
    media, _ = media_of(connection, root)

    first = await media.publish(TRACE, ROOT, [picture("/images/ada/red.png")])
    second = await media.publish(TRACE, ROOT, [picture("/images/ada/red.png")])

    assert first == second
    assert len(fake.media.done) == 1


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (picture("/images/ada/none.png"), "missing"),
        (picture("/images/../../secret.png"), "missing"),
        (picture("/link.png"), "missing"),
        (picture("/images/ada/\x00"), "missing"),
        (picture(""), "missing"),
        (picture("/images/ada/large.png"), "too_large"),
        (picture("/images/ada/red.png", "application/x-unknown"), "type"),
    ],
)
async def test_what_cannot_be_uploaded_is_left_out_and_counted(
    file: AttachedFile, reason: str, fake: FakeLangfuse, connection: LangfuseConnection, root: Path
) -> None:
    """Nothing outside the mounted folder is ever read, whatever path a document names."""
    media, events = media_of(connection, root)

    assert await media.publish(TRACE, ROOT, [file]) == ()
    assert events == [MediaLeftOut(reason)]
    assert fake.media.announced == {}


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_refused_upload_costs_the_reference_and_not_the_turn(
    fake: FakeLangfuse, connection: LangfuseConnection, root: Path, status: int
) -> None:
    """A trace never points at nothing."""
    fake.faults.add(answer(status, route=Route.MEDIA))
    media, events = media_of(connection, root)

    assert await media.publish(TRACE, ROOT, [picture("/images/ada/red.png")]) == ()
    assert events == [MediaLeftOut("refused")]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answer(503, route=Route.MEDIA), Retry("http_503")),
        (answer(429, route=Route.MEDIA, retry_after="7"), Retry("http_429", 7.0)),
        (cut(route=Route.MEDIA, stored=False), Retry("RemoteProtocolError")),
        (answer(401, route=Route.MEDIA), Refused("http_401")),
    ],
)
async def test_what_passes_is_told_and_not_counted_as_left_out(
    fake: FakeLangfuse,
    connection: LangfuseConnection,
    root: Path,
    fault: Fault,
    expected: Retry | Refused,
) -> None:
    """A file beside it that will never be taken counts with the last try, once."""
    fake.faults.add(fault)
    media, events = media_of(connection, root)
    files = [picture("/images/ada/none.png"), picture("/images/ada/red.png")]

    assert await media.publish(TRACE, ROOT, files) == expected
    assert events == []

    assert isinstance(references := await media.publish(TRACE, ROOT, files), tuple)
    assert len(references) == 1
    assert events == [MediaLeftOut("missing")]


async def test_a_storage_that_is_away_is_told_apart_from_langfuse(
    connection: LangfuseConnection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Langfuse answers where to put the bytes, and nothing listens there."""
    media, events = media_of(connection, root)
    announce = MediaStore.announce

    def announce_elsewhere(store: MediaStore, body: dict[str, Any], _: str) -> dict[str, Any]:
        return announce(store, body, "http://127.0.0.1:9/unreachable")

    monkeypatch.setattr(MediaStore, "announce", announce_elsewhere)

    answer = await media.publish(TRACE, ROOT, [picture("/images/ada/red.png")])

    assert answer == StorageAway("ConnectError")
    assert isinstance(answer, StorageAway)
    assert answer.remedy == "the connection was refused: nothing listens there, or at the proxy before it"
    assert events == []


async def test_events_are_emitted_by_the_loop_alone(connection: LangfuseConnection, root: Path) -> None:
    """Files are read on threads; what is told of them moves counters that are not made for several."""
    threads: list[int] = []
    media = LangfuseMedia(
        connection, MediaOptions(root, largest_bytes=200), lambda _: threads.append(threading.get_ident())
    )
    files = [picture("/images/ada/none.png"), picture("/images/ada/large.png")]

    assert await media.publish(TRACE, ROOT, files) == ()
    assert threads == [threading.get_ident()] * 2
