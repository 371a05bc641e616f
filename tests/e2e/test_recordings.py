"""Recorded LibreChat traffic through a real replica set and the real daemon: each turn arrives as it was.

All recordings go through one daemon, three times: live, in proportion to the recorded times; all at once while the
daemon was away; and into the file sink.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import langfuse_settings, start
from tests.e2e.databases import Databases, open_databases
from tests.e2e.expectations import (
    TITLE,
    TURN,
    Sent,
    Tool,
    Traffic,
    place,
    sent_line,
    sent_spans,
    without_names,
)
from tests.fakes.langfuse import FakeLangfuse

NAMES = (
    "01-single-turn",
    "02-multi-turn",
    "03-regenerate",
    "04-edit-resubmit",
    "05-edit-in-place",
    "06-abort",
    "07-errors",
    "09-agent-tools",
    "10-files",
    "11-feedback",
    "16-reasoning",
    "18-parallel-added-convo",
    "20-kill-midstream",
    "23-hitl-tool-approval",
)
# What is edited in place was sent before or after its edit: played live, the time decides.
TIMED = ("05-edit-in-place",)
CASES = [
    (way, name)
    for way in ("live", "after-an-absence", "into-a-file")
    for name in NAMES
    if way != "live" or name not in TIMED
]
SPEED = 20.0
SETTINGS = {"TAILER_SETTLE_SECONDS": "0.2", "TAILER_CHECKPOINT_SECONDS": "0.2", "TAILER_PARK_SECONDS": "1"}
MARKED_AS_GUESS = {"estimated", "output_only", "unknown"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was played, and what arrived: each trace, and how often each one."""

    traffic: Mapping[str, Traffic]
    arrived: list[Sent]
    violations: list[str]

    def of(self, name: str) -> dict[str, Sent]:
        """The traces in the conversations of a recording, by id; none may have arrived twice."""
        found = [trace for trace in self.arrived if trace.session in self.traffic[name].conversations]
        by_id = {trace.trace_id: trace for trace in found}
        assert len(by_id) == len(found)
        return by_id


@pytest.fixture(scope="module")
def deliveries(
    replica_set: ReplicaSet, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Delivery]:
    """Gives all recordings, delivered in one of the three ways; each is done once."""
    ways = {"live": deliver_live, "after-an-absence": deliver_after_absence, "into-a-file": deliver_into_file}

    async def run(way: str) -> Delivery:
        async with open_databases(replica_set) as databases:
            return await ways[way](databases, tmp_path_factory.mktemp(way))

    return cache(lambda way: asyncio.run(run(way)))


@pytest.fixture
def delivery(deliveries: Callable[[str], Delivery], way: str) -> Delivery:
    """All recordings, delivered in the way that the test is about."""
    return deliveries(way)


def place_all(names: tuple[str, ...]) -> dict[str, Traffic]:
    now = datetime.now(UTC)
    return {name: place(name, now) for name in names}


def collect(fake: FakeLangfuse, traffic: Mapping[str, Traffic]) -> Delivery:
    """What the fake holds; a span that came twice would be there twice."""
    assert fake.duplicates() == []
    assert fake.unresolved_parents() == []
    assert fake.state.unknown_requests == []
    return Delivery(
        traffic,
        [sent_spans(fake.trace(trace_id)) for trace_id in fake.trace_ids()],
        [str(violation) for violation in fake.violations],
    )


async def deliver_live(databases: Databases, directory: Path) -> Delivery:
    traffic = place_all(tuple(name for name in NAMES if name not in TIMED))
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=directory) as daemon:
            await daemon.wait_until_ready()
            await play(
                [each.recording for each in traffic.values()],
                databases.source,
                speed=SPEED,
                max_gap=timedelta(seconds=5),
            )
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0
        return collect(fake, traffic)


async def deliver_after_absence(databases: Databases, directory: Path) -> Delivery:
    traffic = place_all(NAMES)
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=directory) as daemon:
            await daemon.wait_until_ready()
            daemon.terminate()
            assert await daemon.exit_code() == 0
        await play([each.recording for each in traffic.values()], databases.source, speed=None)
        async with start(settings, directory=directory) as daemon:
            await daemon.wait_until_ready()
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0
        return collect(fake, traffic)


async def deliver_into_file(databases: Databases, directory: Path) -> Delivery:
    traffic = place_all(NAMES)
    file = directory / "turns.jsonl"
    settings = {**databases.settings, **SETTINGS, "TAILER_FILE_PATH": str(file)}
    async with start(settings, directory=directory) as daemon:
        assert (await daemon.wait_for_line("started"))["writes_to"] == str(file)
        await daemon.wait_until_ready()
        # What is edited in place must be read after the edit, to be comparable.
        daemon.stop()
        await play([each.recording for each in traffic.values()], databases.source, speed=None)
        daemon.resume()
        await databases.wait_until_done(daemon.must_run)
        daemon.terminate()
        assert await daemon.exit_code() == 0
    lines = [sent_line(line) for line in file.read_text().splitlines()]
    # What was written into a turn later has lines of its own, which hold no root.
    whole = [line for line in lines if any(item.parent is None for item in line.observations)]
    return Delivery(traffic, whole, [])


def parametrize_cases() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("way", "name"), CASES)


@parametrize_cases()
def test_every_turn_with_a_response_arrives_once_and_nothing_else_but_titles(
    delivery: Delivery, name: str
) -> None:
    """The ids are those of LibreChat's own tracing; a title's is derived from the same response."""
    traffic, arrived = delivery.traffic[name], delivery.of(name)

    assert {trace.trace_id for trace in arrived.values() if trace.name == TURN} == {
        turn.trace_id for turn in traffic.turns()
    }
    assert {trace.trace_id for trace in arrived.values() if trace.name == TITLE} == traffic.titles().keys()
    assert {trace.name for trace in arrived.values()} <= {TURN, TITLE}
    assert delivery.violations == []


@parametrize_cases()
def test_nothing_arrives_from_outside_the_conversations(delivery: Delivery, name: str) -> None:
    """Each trace belongs to a conversation of a recording, and to the user who asked there."""
    known = {session for traffic in delivery.traffic.values() for session in traffic.conversations}

    assert {trace.session for trace in delivery.arrived} <= known
    users = {turn.user for turn in delivery.traffic[name].turns()}
    assert {trace.user for trace in delivery.of(name).values()} == users


@parametrize_cases()
def test_a_turn_shows_who_asked_what_and_got_which_answer(delivery: Delivery, name: str) -> None:
    """Root input is the text as the user's row has it, root output the text as the response's parts have it."""
    arrived = delivery.of(name)
    for turn in delivery.traffic[name].turns():
        sent = arrived[turn.trace_id]

        assert (sent.session, sent.user) == (turn.session, turn.user)
        assert (sent.root.type, sent.root.input) == ("agent", turn.question)
        assert without_names(sent.root.output) == turn.answer


@parametrize_cases()
def test_a_turn_that_failed_says_so_with_the_providers_message(delivery: Delivery, name: str) -> None:
    """Level and message stand on the root and on the call that failed; no other turn is an error."""
    arrived = delivery.of(name)
    for turn in delivery.traffic[name].turns():
        sent = arrived[turn.trace_id]
        last_call = sent.of("generation")[-1]

        if turn.failure is None:
            assert sent.root.level == ("WARNING" if turn.stopped else "DEFAULT")
        else:
            assert (sent.root.level, sent.root.status) == ("ERROR", turn.failure.strip())
            assert (last_call.level, last_call.status) == ("ERROR", turn.failure.strip())


@parametrize_cases()
def test_tokens_are_the_providers_own_wherever_it_told_them(delivery: Delivery, name: str) -> None:
    """Summed over the generations, in exclusive buckets; what was not told is not passed off as told."""
    arrived = delivery.of(name)
    for turn in delivery.traffic[name].turns():
        sent = arrived[turn.trace_id]
        sources = {call.metadata["usage_source"] for call in sent.of("generation")}

        if turn.tokens is None:
            assert sources <= MARKED_AS_GUESS
        else:
            assert sent.tokens == turn.tokens
            assert sources == {"reported"}


@parametrize_cases()
def test_a_generation_names_the_model_that_was_asked(delivery: Delivery, name: str) -> None:
    """As an attribute where there are numbers, else in the metadata, where no server counts tokens by it."""
    arrived = delivery.of(name)
    for turn in delivery.traffic[name].turns():
        calls = arrived[turn.trace_id].of("generation")
        named = {call.model or call.metadata.get("model") for call in calls}

        assert named
        assert named <= turn.models
        assert turn.tokens is None or all(call.model for call in calls if call.usage)


@parametrize_cases()
def test_tools_arrive_in_order_with_arguments_and_output(delivery: Delivery, name: str) -> None:
    """Each tool call is an observation under the root."""
    arrived = delivery.of(name)
    for turn in delivery.traffic[name].turns():
        sent = arrived[turn.trace_id]

        assert [Tool(tool.name, tool.input, tool.output) for tool in sent.of("tool")] == list(turn.tools)
        assert all(step.parent is not None for step in sent.observations[1:])


@parametrize_cases()
def test_a_title_has_the_tokens_that_it_took(delivery: Delivery, name: str) -> None:
    """A title is a trace of its own, so its tokens are in no turn."""
    arrived = delivery.of(name)
    for trace_id, tokens in delivery.traffic[name].titles().items():
        assert arrived[trace_id].tokens == tokens


@parametrize_cases()
def test_what_was_charged_is_what_it_cost(delivery: Delivery, name: str) -> None:
    """Turn and title each by itself; what LibreChat charged nothing for costs nothing."""
    arrived, charged = delivery.of(name), delivery.traffic[name].dollars()

    assert charged.keys() <= arrived.keys()
    for trace_id, trace in arrived.items():
        assert trace.dollars == pytest.approx(charged.get(trace_id, 0.0), abs=1e-12)
