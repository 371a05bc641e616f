"""The real daemon with one OTLP destination: recorded changes go in, spans and metrics of the conventions come out."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tailer.demo.stage.player import play
from tests.e2e.daemon import Daemon, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import Traffic, place
from tests.e2e.playing import QUICK
from tests.fakes.otlp import FakeReceiver, ReceivedSpan, Reply

NAMES = (
    "02-multi-turn",
    "07-errors",
    "09-agent-tools",
    "11-feedback",
    "16-reasoning",
    "18-parallel-added-convo",
)
TURN = "librechat-turn"


@dataclass(frozen=True, slots=True)
class World:
    """A running daemon, what it reads, and where it sends."""

    databases: Databases
    receiver: FakeReceiver
    daemon: Daemon

    async def play(self, *names: str) -> Mapping[str, Traffic]:
        """Play recordings all at once, and wait until everything was seen through."""
        now = datetime.now(UTC)
        traffic = {name: place(name, now) for name in names}
        self.daemon.stop()
        await play([each.recording for each in traffic.values()], self.databases.source, speed=None)
        self.daemon.resume()
        await self.done()
        return traffic

    async def done(self) -> None:
        """Return once everything written so far was seen through."""
        await self.databases.wait_until_done(self.daemon.must_run)

    def roots(self) -> list[ReceivedSpan]:
        """The first spans of turns, in the order of their arrival."""
        return [
            span
            for span in self.receiver.spans
            if span.attributes.get("librechat.trace.name") == TURN and span.parent_span_id is None
        ]


def describe(receiver: FakeReceiver, **keys: str) -> str:
    """A file of destinations with this one alone."""
    lines = {"kind": '"otlp"', "endpoint": f'"{receiver.url}"', "headers": '{ api-key = "k1" }', **keys}
    return "[destinations.collector]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


@asynccontextmanager
async def run(
    databases: Databases, directory: Path, receiver: FakeReceiver, **keys: str
) -> AsyncIterator[World]:
    """The daemon, ready; it must end in order."""
    file = directory / "destinations.toml"
    file.write_text(describe(receiver, **keys))
    settings = {
        **databases.settings,
        **QUICK,
        "TAILER_DESTINATIONS": str(file),
        "TAILER_DELETIONS": "delete",
    }
    async with start(settings, directory=directory) as daemon:
        await daemon.wait_until_ready()
        yield World(databases, receiver, daemon)
        daemon.terminate()
        assert await daemon.exit_code() == 0


@pytest.fixture
async def receiver() -> AsyncIterator[FakeReceiver]:
    async with FakeReceiver(keys={"api-key": "k1"}) as fake:
        yield fake
        assert fake.violations == []


def usage_of(spans: list[ReceivedSpan], kind: str) -> int:
    return sum(int(str(span.attributes.get(f"gen_ai.usage.{kind}_tokens", 0))) for span in spans)


async def test_every_recorded_turn_arrives_once_under_the_ids_that_langfuse_would_get(
    databases: Databases, receiver: FakeReceiver, tmp_path: Path
) -> None:
    """Its tokens come as metrics too, each once, by the end at the latest."""
    async with run(databases, tmp_path, receiver, metrics="true") as world:
        traffic = await world.play(*NAMES)
        roots = world.roots()

    assert sorted(span.trace_id for span in roots) == sorted(
        turn.trace_id for each in traffic.values() for turn in each.turns()
    )
    ids = [(span.trace_id, span.span_id) for span in receiver.spans]
    assert len(set(ids)) == len(ids)
    for kind in ("input", "output"):
        counted = [
            point
            for point in receiver.points
            if point.metric == "gen_ai.client.token.usage" and point.attributes["gen_ai.token.type"] == kind
        ]
        assert sum(point.sum for point in counted) == usage_of(receiver.spans, kind) > 0


async def test_what_the_receiver_does_not_take_waits_and_what_may_come_twice_is_counted(
    databases: Databases, receiver: FakeReceiver, tmp_path: Path
) -> None:
    """First it is unwell, then its answer is lost after it took the turn."""
    async with run(databases, tmp_path, receiver) as world:
        receiver.replies.extend([Reply(503, headers={"retry-after": "1"}), Reply(cut=True, taken=True)])
        traffic = await world.play("01-single-turn")
        metrics = await world.daemon.metrics()
        said = world.daemon.lines("traces_may_repeat")
        repeated = metrics.total("tailer_export_traces_may_repeat_total")

    (turn,) = traffic["01-single-turn"].turns()
    assert [span.trace_id for span in world.roots()] == [turn.trace_id] * 2
    assert len(said) == 1
    assert repeated >= 1


async def test_without_content_no_word_of_a_turn_leaves_and_the_numbers_do(
    databases: Databases, receiver: FakeReceiver, tmp_path: Path
) -> None:
    async with run(databases, tmp_path, receiver, content='"none"', compression='"none"') as world:
        traffic = await world.play("09-agent-tools")

    texts = [turn.text for turn in traffic["09-agent-tools"].truth.turns if turn.text]
    bodies = b"".join(body for _, _, body in receiver.requests)
    assert texts
    assert not [text for text in texts if text.encode() in bodies]
    assert usage_of(receiver.spans, "output") > 0


async def test_what_people_do_with_a_turn_later_adds_spans_and_what_cannot_be_done_is_said(
    databases: Databases, receiver: FakeReceiver, tmp_path: Path
) -> None:
    """An edit, a rating, a rating that is withdrawn, a deletion. Nothing that was sent is sent again."""

    async def write(**fields: Any) -> None:
        await databases.source["messages"].update_many(
            {"isCreatedByUser": False}, {"$set": {**fields, "updatedAt": datetime.now(UTC)}}
        )
        await world.done()

    async with run(databases, tmp_path, receiver) as world:
        await world.play("01-single-turn")
        before = len(receiver.spans)
        await write(text="Edited.", content=[{"type": "text", "text": "Edited."}])
        await write(feedback={"rating": "thumbsDown", "tag": "inaccurate", "text": "No."})
        await write(feedback=None)
        await databases.source["messages"].delete_many({})
        await world.done()
        left_out = [line["operation"] for line in world.daemon.lines("annotation_left_out")]
        metrics = await world.daemon.metrics()

    edit, rating = receiver.spans[before:]
    root = world.roots()[0]
    assert (edit.name, edit.attributes["librechat.output"]) == ("librechat.edit", "Edited.")
    assert rating.name == "librechat.feedback"
    assert rating.attributes["gen_ai.evaluation.score.value"] == 0.0
    assert rating.attributes["gen_ai.evaluation.explanation"] == "inaccurate — No."
    assert {(span.trace_id, span.parent_span_id) for span in (edit, rating)} == {
        (root.trace_id, root.span_id)
    }
    assert left_out == ["delete_score", "delete_traces"]
    # The trace of the turn and that of its title.
    assert metrics.total("tailer_annotations_left_out_total") == 3
