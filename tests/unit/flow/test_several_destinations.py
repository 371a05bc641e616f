"""Several destinations: each gets its own turns, as its own options say, each once; none waits for another."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.backfill import Counts, Job, JobReason
from tailer.core.identity import DocumentKey, title_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tailer.events import DestinationForgotten, DestinationLeft, DestinationReturned, TracesDelivered
from tailer.flow.sending.outcomes import Rejected, Retry
from tests.evidence import trace_ids
from tests.memory import MemoryDestination
from tests.memory.clock import monotonic
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.destinations_file import write_destinations
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene, until

_MINUTE = timedelta(minutes=1)
NAMES = ("default", "team-a", "quiet")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """`default` gets everything, `team-a` what comes over its endpoint, `quiet` everything without content."""
    return write_destinations(
        tmp_path / "destinations.toml",
        NAMES,
        otherwise=("default", "quiet"),
        routes={"team-a": NAMES},
        without_content=("quiet",),
    )


def chat(scene: Scene, number: int, *, endpoint: str = "openAI", **fields: Any) -> DocumentKey:
    """A chat of one turn; the `_id` of its answer."""
    own = {"conversationId": f"c{number}", "endpoint": endpoint}
    scene.librechat.insert("messages", question(f"q{number}", None, **own))
    (key,) = scene.librechat.insert("messages", answer(f"a{number}", f"q{number}", **{**own, **fields}))
    return key


def turns(*numbers: int) -> list[str]:
    return [str(trace_id) for trace_id in trace_ids(*(f"a{number}" for number in numbers))]


def assert_once(destination: MemoryDestination, records: Sequence[str]) -> None:
    assert sorted(destination.record_ids()) == sorted(records)


async def until_all_have(scene: Scene, *records: str, names: Sequence[str] = NAMES) -> None:
    await until(lambda: all(set(records) <= set(scene.at(name).record_ids()) for name in names), seconds=3600)


async def test_each_destination_gets_the_turns_that_its_routes_name(scene: Scene, plan: Path) -> None:
    """Each once; and no content where none is to be shown."""
    async with running(scene, destinations_file=plan) as run:
        for number in range(6):
            chat(scene, number, endpoint="team-a" if number % 2 else "openAI")
        await run.until_done()
        outcomes = run.outcomes()

    assert_once(scene.at("default"), turns(*range(6)))
    assert_once(scene.at("quiet"), turns(*range(6)))
    assert_once(scene.at("team-a"), turns(1, 3, 5))
    assert b"text of" in b"".join(scene.at("default").payloads)
    assert b"text of" not in b"".join(scene.at("quiet").payloads)
    assert outcomes == ["complete"] * 6


async def test_what_a_later_run_reads_again_is_sent_to_nothing_again(scene: Scene, plan: Path) -> None:
    """The records are kept by destination."""
    async with running(scene, destinations_file=plan) as run:
        chat(scene, 1, endpoint="team-a")
        await run.until_done()
    before = dict(scene.database.checkpoints)
    async with running(scene, destinations_file=plan) as run:
        chat(scene, 2, endpoint="team-a")
        await run.until_done()
    scene.database.checkpoints.update(before)
    async with running(scene, destinations_file=plan) as run:
        await run.until_done()

    for name in NAMES:
        assert_once(scene.at(name), turns(1, 2))


async def test_ratings_edits_and_deletions_go_where_the_turn_is(scene: Scene, plan: Path) -> None:
    """And nowhere else."""
    async with running(scene, destinations_file=plan, deletions=DeletionPolicy.DELETE) as run:
        first, second = chat(scene, 1), chat(scene, 2, endpoint="team-a")
        await run.until_done()
        for key in (first, second):
            scene.librechat.update("messages", key, {"text": "edited", "feedback": {"rating": "thumbsUp"}})
        await run.until_done()
        edited = {name: scene.at(name).record_ids() for name in NAMES}
        scene.librechat.delete("messages", second)
        await run.until_done()

    both = [*turns(1, 2), *(f"{turn}:edit:0" for turn in turns(1, 2))]
    assert sorted(edited["default"]) == sorted(both)
    assert sorted(edited["quiet"]) == sorted(both)
    assert sorted(edited["team-a"]) == sorted([*turns(2), f"{turns(2)[0]}:edit:0"])
    # A rating and a correction of each; the correction is content.
    assert {name: len(scene.at(name).scores) for name in NAMES} == {"default": 4, "team-a": 2, "quiet": 2}
    for name in NAMES:
        assert turns(2)[0] not in scene.at(name).trace_ids()
        assert [name for kind, name in scene.at(name).history if kind == "delete"] == turns(2)


async def test_a_turn_that_breaks_the_code_of_one_destination_is_buried_there_alone(
    scene: Scene, plan: Path
) -> None:
    scene.sink_of("quiet").breaks_on = frozenset({"a1"})
    async with running(scene, destinations_file=plan) as run:
        for number in range(3):
            chat(scene, number, endpoint="team-a")
        await run.until_done()
        outcomes = run.outcomes()

    for name in ("default", "team-a"):
        assert_once(scene.at(name), turns(0, 1, 2))
        assert scene.database.at(name).letters == {}
    assert_once(scene.at("quiet"), turns(0, 2))
    assert list(scene.database.at("quiet").letters) == turns(1)
    assert outcomes == ["complete"] * 3


async def test_a_turn_that_one_destination_rejects_is_a_dead_letter_of_that_one(
    scene: Scene, plan: Path
) -> None:
    """Its replay concerns that destination alone."""
    scene.at("quiet").rejects = lambda message_id: message_id == "a1"
    async with running(scene, destinations_file=plan) as run:
        for number in range(3):
            chat(scene, number)
        await run.until_done()
        assert list(scene.database.at("quiet").letters) == turns(1)
        scene.at("quiet").rejects = None
        scene.database.at("quiet").letters[turns(1)[0]].replay = "asked"
        await until_all_have(scene, *turns(1), names=["quiet"])
        await until(lambda: not scene.database.at("quiet").letters)
        await run.until_done()

    for name in ("default", "quiet"):
        assert_once(scene.at(name), turns(0, 1, 2))


async def test_a_destination_that_is_away_holds_up_no_other(scene: Scene, plan: Path) -> None:
    """For an hour; the positions go on, what is owed stands in the state database, and is sent once when it is back."""
    scene.at("quiet").is_away = True
    async with running(scene, destinations_file=plan) as run:
        for number in range(40):
            chat(scene, number, endpoint="team-a" if number % 2 else "openAI")
            await asyncio.sleep(30)
        await run.until_done(limit=_MINUTE)
        (left,) = run.events.of(DestinationLeft)
        assert left.destination == "quiet"
        assert left.waited_seconds < 10
        assert_once(scene.at("default"), turns(*range(40)))
        assert_once(scene.at("team-a"), turns(*range(1, 40, 2)))
        position = scene.librechat.position()
        await asyncio.sleep(10)
        stored = scene.database.checkpoints
        assert min(each.position.moment for each in stored.values()) >= position.moment
        waiting = scene.database.at("quiet")
        assert len(waiting.owed) + sum(len(batch.items) for batch in waiting.batches.values()) == 40
        assert len(waiting.batches) <= 4

        scene.at("quiet").is_away = False
        await until(lambda: len(scene.at("quiet").record_ids()) == 40, seconds=3600)
        await until(lambda: not waiting.owed and not waiting.batches)
        # It is looked once a second whether a destination has come back.
        await until(lambda: bool(run.events.of(DestinationReturned)))
        (back,) = run.events.of(DestinationReturned)
        assert back.destination == "quiet"
        outcomes = run.outcomes()

    assert_once(scene.at("quiet"), turns(*range(40)))
    for name in NAMES:
        assert scene.at(name).duplicates() == []
    assert outcomes.count("complete") == 40
    assert outcomes.count("caught_up") == 40
    assert len(outcomes) == 80


async def test_what_is_owed_comes_in_the_order_of_its_age(scene: Scene, plan: Path) -> None:
    scene.at("quiet").is_away = True
    async with running(scene, destinations_file=plan) as run:
        chat(scene, 0)
        await until(lambda: bool(run.events.of(DestinationLeft)))
        for number in range(1, 8):
            chat(scene, number)
            await asyncio.sleep(30)
        scene.at("quiet").is_away = False
        await until_all_have(scene, *turns(*range(8)), names=["quiet"])

    assert scene.at("quiet").record_ids() == turns(*range(8))


async def test_one_that_refuses_its_keys_holds_up_no_other(scene: Scene, plan: Path) -> None:
    scene.at("team-a").refuses_keys = True
    async with running(scene, destinations_file=plan) as run:
        for number in range(10):
            chat(scene, number, endpoint="team-a")
            await asyncio.sleep(20)
        await run.until_done(limit=_MINUTE)
        assert_once(scene.at("default"), turns(*range(10)))
        refused = [each.name for each in run.pipeline.destinations if each.health.is_refused]
        assert refused == ["team-a"]
        scene.at("team-a").refuses_keys = False
        await until_all_have(scene, *turns(*range(10)))

    for name in NAMES:
        assert_once(scene.at(name), turns(*range(10)))


async def test_what_comes_after_a_turn_is_owed_too(scene: Scene, plan: Path) -> None:
    """A rating and an edit of a turn that is there, of one that is on its way, and of one that is owed; and a
    deletion."""
    async with running(scene, destinations_file=plan, deletions=DeletionPolicy.DELETE) as run:
        keys = {number: chat(scene, number) for number in (0, 1)}
        await run.until_done()
        scene.at("quiet").is_away = True
        keys |= {2: chat(scene, 2, feedback={"rating": "thumbsDown"})}
        await until(lambda: bool(run.events.of(DestinationLeft)))
        keys |= {3: chat(scene, 3)}
        await run.until_done(limit=_MINUTE)
        for number in (0, 2, 3):
            changes = {"text": "edited", "feedback": {"rating": "thumbsUp"}}
            scene.librechat.update("messages", keys[number], changes)
        scene.librechat.delete("messages", keys[1])
        await run.until_done(limit=_MINUTE)
        await asyncio.sleep(1800)
        scene.at("quiet").is_away = False
        held = scene.database.at("quiet")
        await until(lambda: not held.owed and not held.batches, seconds=3600)
        await run.until_done()

    for name in ("default", "quiet"):
        destination = scene.at(name)
        assert sorted(destination.trace_ids()) == sorted(turns(0, 2, 3))
        assert destination.duplicates() == []
        assert {f"feedback-{turn}" for turn in turns(0, 2, 3)} <= destination.scores.keys()
        ratings = {destination.scores[f"feedback-{turn}"].value for turn in turns(0, 2, 3)}
        assert len(ratings) == 1
    # What was not sent yet goes as it stands; what was there, or on its way, gets its edit.
    edits = [record for record in scene.at("quiet").record_ids() if ":edit:" in record]
    assert sorted(edits) == sorted(f"{turn}:edit:0" for turn in turns(0, 2))


async def test_scores_that_one_destination_does_not_take_hold_up_nothing(scene: Scene, plan: Path) -> None:
    """It takes traces all the while."""
    scene.at("quiet").rejects_score = lambda score_id: Retry("http_503")  # noqa: ARG005 - each of them
    async with running(scene, destinations_file=plan) as run:
        keys = [chat(scene, number) for number in range(4)]
        await run.until_done()
        for key in keys:
            scene.librechat.update("messages", key, {"feedback": {"rating": "thumbsUp"}})
        await run.until_done(limit=_MINUTE)
        assert len(scene.at("default").scores) == 4
        chat(scene, 9)
        await until_all_have(scene, *turns(9), names=["default", "quiet"])
        await asyncio.sleep(1800)
        asked = scene.at("quiet").requests
        await asyncio.sleep(600)
        assert scene.at("quiet").requests - asked < 60
        scene.at("quiet").rejects_score = None
        await until(lambda: len(scene.at("quiet").scores) == 4, seconds=3600)
        await until(lambda: not scene.database.at("quiet").owed)


async def test_scores_that_one_destination_does_not_answer_hold_up_nothing(scene: Scene, plan: Path) -> None:
    """Each question hangs for two minutes; the ratings of the others arrive within seconds."""
    scene.at("quiet").score_latency_seconds = 120
    async with running(scene, destinations_file=plan) as run:
        keys = [chat(scene, number) for number in range(30)]
        await run.until_done()
        for sent, key in enumerate(keys, start=1):
            scene.librechat.update("messages", key, {"feedback": {"rating": "thumbsUp"}})
            await asyncio.sleep(10)
            await until(partial(_has_scores, scene, sent), seconds=15)
        await run.until_done(limit=_MINUTE)
        scene.at("quiet").score_latency_seconds = 0
        await until(lambda: len(scene.at("quiet").scores) == 30, seconds=3600)
        await until(lambda: not scene.database.at("quiet").owed)


def _delay_turns(destination: MemoryDestination) -> None:
    destination.latency_seconds = 4


def _refuse_scores(destination: MemoryDestination) -> None:
    """For four seconds of eight: no longer than the others wait."""
    destination.rejects_score = lambda score_id: Retry("http_503") if monotonic() % 8 < 4 else None  # noqa: ARG005


@pytest.mark.parametrize("hold_up", [_delay_turns, _refuse_scores])
async def test_a_rated_turn_is_brought_back_although_another_destination_is_not_done_with_it(
    hold_up: Callable[[MemoryDestination], None], scene: Scene, plan: Path
) -> None:
    """It waits there to be sent, or for its rating: its entry is open for the rating alone, and concerns both."""
    scene.at("quiet").is_away = True
    async with running(scene, destinations_file=plan) as run:
        chat(scene, 0)
        await until(lambda: bool(run.events.of(DestinationLeft)))
        hold_up(scene.at("default"))
        for number in range(1, 160):
            chat(scene, number, feedback={"rating": "thumbsUp"})
            scene.at("quiet").is_away = number < 80
            await asyncio.sleep(1)
        scene.at("default").latency_seconds = 0
        scene.at("default").rejects_score = None
        await until(lambda: not any(scene.database.at(name).owed for name in NAMES), seconds=3600)
        await run.until_done()

    for name in ("default", "quiet"):
        assert_once(scene.at(name), turns(*range(160)))
        assert len(scene.at(name).scores) == 159


async def test_nothing_is_brought_back_while_the_tailer_ends(scene: Scene, plan: Path) -> None:
    """It sends what is open, and leaves the rest to the next start."""
    scene.at("quiet").is_away = True
    async with running(scene, destinations_file=plan, concurrent_requests=1) as run:
        for number in range(50):
            chat(scene, number)
            await asyncio.sleep(5)
        await run.until_done(limit=_MINUTE)
        scene.at("quiet").latency_seconds = 5
        scene.at("quiet").is_away = False
        run.shutdown.request()
        began = asyncio.get_running_loop().time()
        await run.stop()
        assert asyncio.get_running_loop().time() - began < 15
    scene.at("quiet").latency_seconds = 0
    async with running(scene, destinations_file=plan) as run:
        await until_all_have(scene, *turns(*range(50)), names=["quiet"])
        await until(lambda: not scene.database.at("quiet").owed)
    assert_once(scene.at("quiet"), turns(*range(50)))


async def test_a_title_that_is_owed_comes_after_its_turn(scene: Scene, plan: Path) -> None:
    scene.at("quiet").is_away = True
    async with running(scene, destinations_file=plan) as run:
        (conversation,) = scene.librechat.insert(
            "conversations", {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
        )
        scene.librechat.insert("transactions", transaction(messageId="a1", context="title"))
        chat(scene, 1)
        await run.until_done(limit=_MINUTE)
        scene.librechat.update("conversations", conversation, {"title": "Clocks"})
        await run.until_done(limit=_MINUTE)
        await asyncio.sleep(600)
        scene.at("quiet").is_away = False
        await until_all_have(scene, turn_trace_id("a1"), title_trace_id("a1"), names=["default", "quiet"])
        await until(lambda: not scene.database.at("quiet").owed)

    for name in ("default", "quiet"):
        assert scene.at(name).record_ids() == [turn_trace_id("a1"), title_trace_id("a1")]


@pytest.mark.parametrize("seconds", [1, 4, 7, 30, 300])
async def test_a_run_that_is_killed_while_one_is_away_loses_and_doubles_nothing(
    scene: Scene, plan: Path, seconds: float
) -> None:
    """Between two shares of a turn, while a batch is held, after it was let go, and again."""
    scene.at("quiet").is_away = True
    written = 0
    for _ in range(3):
        async with running(scene, destinations_file=plan):
            for _ in range(5):
                chat(scene, written, endpoint="team-a" if written % 2 else "openAI")
                written += 1
                await asyncio.sleep(seconds)
    scene.at("quiet").is_away = False
    async with running(scene, destinations_file=plan) as run:
        await until_all_have(scene, *turns(*range(written)), names=["default", "quiet"])
        held = scene.database.at("quiet")
        await until(lambda: not held.owed and not held.batches, seconds=3600)
        await run.until_done()

    for name in ("default", "quiet"):
        assert_once(scene.at(name), turns(*range(written)))
    assert_once(scene.at("team-a"), turns(*range(1, written, 2)))


async def test_a_slow_destination_slows_no_other_down(scene: Scene, plan: Path) -> None:
    """It takes a minute for each request; the others have their turns within seconds, and it gets all of them."""
    scene.at("quiet").latency_seconds = 60
    async with running(scene, destinations_file=plan, batch_traces=1, concurrent_requests=1) as run:
        for number in range(60):
            chat(scene, number)
            await asyncio.sleep(2)
        await until_all_have(scene, *turns(*range(60)), names=["default"])
        delivered = [event for event in run.events.of(TracesDelivered) if event.destination == "default"]
        late = [seconds for event in delivered for seconds in event.latencies_seconds if seconds > 30]
        assert late == []
        await until_all_have(scene, *turns(*range(60)), names=["quiet"])
        await run.until_done()

    assert_once(scene.at("quiet"), turns(*range(60)))


async def test_a_refused_score_is_settled_for_its_destination(scene: Scene, plan: Path) -> None:
    scene.at("quiet").rejects_score = lambda score_id: Rejected("http_400")  # noqa: ARG005 - each of them
    async with running(scene, destinations_file=plan) as run:
        key = chat(scene, 1)
        await run.until_done()
        scene.librechat.update("messages", key, {"feedback": {"rating": "thumbsUp"}})
        await run.until_done(limit=_MINUTE)

    assert len(scene.at("default").scores) == 1
    assert scene.at("quiet").scores == {}
    assert scene.database.at("quiet").owed == {}


async def test_a_destination_that_is_added_later_is_filled_from_history(
    scene: Scene, plan: Path, tmp_path: Path
) -> None:
    """By a backfill that names it: the others get nothing again, not even where their records have expired."""
    alone = tmp_path / "alone.toml"
    write_destinations(alone, ["default"])
    async with running(scene, destinations_file=alone) as run:
        for number in range(6):
            chat(scene, number, endpoint="team-a" if number % 2 else "openAI")
        await run.until_done()
    del scene.database.at("default").exports[turns(1)[0]]
    async with running(scene, destinations_file=plan) as run:
        await scene.state.add_job(Job("fill", JobReason.ASKED, destination="team-a"))
        await until(lambda: scene.database.jobs["fill"].is_done, seconds=3600)
        assert scene.at("quiet").requests == 0
        # For a destination that this run does not know: it waits, and holds up no other job.
        await scene.state.add_job(Job("later", JobReason.ASKED, destination="nowhere"))
        await scene.state.add_job(Job("again", JobReason.ASKED, destination="team-a"))
        await until(lambda: scene.database.jobs["again"].is_done, seconds=3600)
        await run.until_done()
    assert not scene.database.jobs["later"].is_done

    assert_once(scene.at("default"), turns(*range(6)))
    assert_once(scene.at("team-a"), turns(1, 3, 5))
    assert scene.database.jobs["fill"].counts == Counts(rows=12, known=0, sent=3, left_out=3)


async def test_a_backfill_fills_every_destination_that_lacks_something(
    scene: Scene, plan: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.toml"
    write_destinations(alone, ["default"])
    async with running(scene, destinations_file=alone) as run:
        for number in range(4):
            chat(scene, number, endpoint="team-a" if number % 2 else "openAI")
        await run.until_done()
    async with running(scene, destinations_file=plan) as run:
        await scene.state.add_job(Job("fill", JobReason.ASKED))
        await until(lambda: scene.database.jobs["fill"].is_done, seconds=3600)
        await run.until_done()

    for name, records in {
        "default": turns(*range(4)),
        "quiet": turns(*range(4)),
        "team-a": turns(1, 3),
    }.items():
        assert_once(scene.at(name), records)


async def test_what_is_left_of_a_destination_that_is_taken_away_is_let_go(
    scene: Scene, plan: Path, tmp_path: Path
) -> None:
    """Reported once; the others go on."""
    scene.at("quiet").is_away = True
    async with running(scene, destinations_file=plan) as run:
        for number in range(6):
            chat(scene, number)
            await asyncio.sleep(10)
        await run.until_done(limit=_MINUTE)
    held = scene.database.at("quiet")
    left = len(held.owed) + sum(len(batch.items) for batch in held.batches.values())
    assert left == 6
    fewer = tmp_path / "fewer.toml"
    write_destinations(fewer, ["default"])
    async with running(scene, destinations_file=fewer) as run:
        (told,) = run.events.of(DestinationForgotten)
        assert (told.destination, told.traces + told.owed) == ("quiet", 6)
        assert not held.owed
        assert not held.batches
        chat(scene, 9)
        await run.until_done()
    async with running(scene, destinations_file=fewer) as run:
        assert run.events.of(DestinationForgotten) == []

    assert_once(scene.at("default"), turns(*range(6), 9))


async def test_what_was_owed_is_sent_by_a_run_with_that_destination_alone(
    scene: Scene, plan: Path, tmp_path: Path
) -> None:
    """The others were taken away meanwhile."""
    scene.at("quiet").is_away = True
    async with running(scene, destinations_file=plan) as run:
        for number in range(6):
            chat(scene, number)
            await asyncio.sleep(10)
        await run.until_done(limit=_MINUTE)
    scene.at("quiet").is_away = False
    alone = tmp_path / "alone.toml"
    write_destinations(alone, ["quiet"])
    async with running(scene, destinations_file=alone) as run:
        await until_all_have(scene, *turns(*range(6)), names=["quiet"])
        await until(lambda: not scene.database.at("quiet").owed)
        await run.until_done()

    assert_once(scene.at("quiet"), turns(*range(6)))


def _has_scores(scene: Scene, number: int) -> bool:
    return len(scene.at("default").scores) >= number
