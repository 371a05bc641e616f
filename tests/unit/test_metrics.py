"""The catalogue and what is exposed are one; labels are closed; the usage metrics are bounded."""

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tailer.cli import execute
from tailer.core.identity import ObservationId, TraceId
from tailer.core.policy.policies import READ_ELSEWHERE, Denial, Fact
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import FailureCause
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.turn.entry_outcomes import EntryOutcome, denied, outcome_of, parked
from tailer.core.turn.turns import Exclusion, Outcome, Wait
from tailer.events import (
    OF_COMMANDS,
    BackfillAdvanced,
    BackfillDone,
    CheckpointSaved,
    ClockCompared,
    DeliveryPaused,
    DeliveryRetried,
    GapsLeft,
    HintsRead,
    LeadershipLost,
    LeaseTaken,
    LettersCounted,
    LibreChatClockCompared,
    OplogSeen,
    RequestDone,
    RowUnreadable,
    StateFailed,
    StateOperation,
    StreamEnded,
    StreamFailed,
    tell_of,
)
from tailer.flow.sending.outcomes import RequestResult
from tailer.health import State
from tailer.metrics import Metrics, catalogue, sending_catalogue
from tailer.metrics.catalogue import CATALOGUE
from tailer.metrics.declaration import Kind, Metric
from tailer.metrics.labels import STATE_OPERATION, WORK_OUTCOME
from tailer.metrics.usage_catalogue import USAGE

DECLARED = {metric.name: metric for section in CATALOGUE for metric in section.metrics}
FORBIDDEN = {"user", "user_id", "conversation", "conversation_id", "message", "message_id", "url", "error"}


def families(registry: CollectorRegistry) -> set[str]:
    """The names as they are declared: the client takes `_total` off a counter's."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
        if family.name.startswith("tailer_")
    }


def test_what_is_exposed_is_declared_and_what_is_declared_is_exposed() -> None:
    metrics = Metrics("1", usage_label_values=5)
    for metric in catalogue.ABSENT_UNTIL_KNOWN:
        metrics.gauge(metric).set(1)

    assert families(metrics.registry) == set(DECLARED)
    assert len(DECLARED) == sum(len(section.metrics) for section in CATALOGUE)


def test_names_say_their_unit_and_labels_name_nobody() -> None:
    for metric in DECLARED.values():
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert not FORBIDDEN & set(metric.label_names)
        assert metric.meaning
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)


def test_closed_sets_are_those_of_the_code() -> None:
    def values(metric: Metric, name: str) -> set[str]:
        return set(next(label.values or () for label in metric.labels if label.name == name))

    assert values(catalogue.STATE, "state") == {state.value for state in State}
    assert values(catalogue.CONNECTED, "stream") == {stream.value for stream in Stream}
    assert values(catalogue.RESTARTS, "reason") == {cause.value for cause in FailureCause}
    assert values(sending_catalogue.REQUESTS, "result") == {result.value for result in RequestResult}


def test_a_failure_that_never_happened_is_zero_so_that_the_first_is_an_increase() -> None:
    registry = Metrics("1").registry

    for name, labels in (
        ("tailer_dead_letters_total", {"reason": "rejected", "destination": "default"}),
        ("tailer_export_requests_total", {"result": "auth", "destination": "default"}),
        ("tailer_export_retries_total", {"destination": "default"}),
        ("tailer_export_paused", {"destination": "default"}),
        ("tailer_stream_restarts_total", {"stream": "messages", "reason": "history_lost"}),
        ("tailer_checkpoint_writes_total", {"result": "error"}),
        ("tailer_stream_gap_seconds_total", {"stream": "messages"}),
    ):
        assert registry.get_sample_value(name, labels) == 0.0


def test_what_is_not_known_has_no_series() -> None:
    names = families(Metrics("1").registry)

    assert not {metric.name for metric in catalogue.ABSENT_UNTIL_KNOWN} & names
    assert not {metric.name for metric in USAGE.metrics} & names


def test_head_room_follows_the_stored_position_and_the_oplog() -> None:
    metrics = Metrics("1")

    def headroom() -> float | None:
        return metrics.registry.get_sample_value("tailer_oplog_headroom_seconds", {"stream": "messages"})

    metrics.record(CheckpointSaved(Stream.MESSAGES, 1_000, 0.001))
    assert headroom() is None
    metrics.record(OplogSeen(400, 1_100))
    assert headroom() == 600
    assert metrics.registry.get_sample_value("tailer_oplog_window_seconds") == 700
    metrics.record(CheckpointSaved(Stream.MESSAGES, 1_010, 0.001))
    assert headroom() == 610
    metrics.record(LeadershipLost(3))
    assert headroom() is None


def test_events_move_what_they_concern() -> None:
    metrics = Metrics("1")
    metrics.record(HintsRead(Stream.MESSAGES, 2, 1, 0, 0))
    metrics.record(ClockCompared(-1.5))
    metrics.record(LibreChatClockCompared(300.0))
    metrics.record(LettersCounted(3))
    metrics.record(DeliveryRetried("http_500", 1, 0.1))
    value = metrics.registry.get_sample_value

    assert value("tailer_stream_events_total", {"stream": "messages", "op": "insert"}) == 2
    assert (value("tailer_stream_last_event_timestamp_seconds", {"stream": "messages"}) or 0) > 1_700_000_000
    assert value("tailer_clock_skew_seconds") == -1.5
    assert value("tailer_librechat_clock_skew_seconds") == 300
    assert value("tailer_dead_letters_kept") == 3
    assert value("tailer_export_retries_total", {"destination": "default"}) == 1


def test_what_is_on_no_list_counts_as_other_and_makes_no_series() -> None:
    metrics = Metrics("1")
    metrics.record(StateFailed(StateOperation.FIND_JOB, "code_1"))
    metrics.record(RowUnreadable("something", "k", "new"))
    value = metrics.registry.get_sample_value

    assert value("tailer_state_failures_total", {"operation": "other"}) == 1
    assert value("tailer_document_parse_failures_total", {"collection": "other", "reason": "other"}) == 1


@pytest.mark.parametrize("metric", DECLARED.values(), ids=lambda metric: metric.name)
def test_a_counter_whose_labels_are_all_closed_is_there_from_the_start(metric: Metric) -> None:
    """Every combination with 0: so that `increase()` sees the first failure of each kind."""
    sets = [label.values for label in metric.labels]
    if metric.kind is not Kind.COUNTER or None in sets:
        return
    found = [
        sample
        for family in Metrics("1", usage_label_values=5).registry.collect()
        for sample in family.samples
        if sample.name == metric.name
    ]
    assert [sample.value for sample in found] == [0] * math.prod(len(values or ()) for values in sets)


def first_texts(folder: str, *methods: str) -> set[str]:
    """The literal texts that calls of these methods or functions get first."""
    found = set()
    for path in (Path(__file__).parents[2] / "tailer" / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                called = (
                    call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                )
                if called in methods:
                    found.add(str(call.args[0].value))
    return found


def test_every_operation_on_the_state_is_a_label() -> None:
    """No other can be emitted, because the type has no other; and none is listed that is never done."""
    done = {
        node.attr
        for path in (Path(__file__).parents[2] / "tailer" / "mongo" / "state").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "StateOperation"
    }

    assert done == set(StateOperation.__members__)
    assert {each for each in StateOperation if STATE_OPERATION.fit(each) == "other"} == OF_COMMANDS
    assert first_texts("mongo/state", "attempt", "write", "report") == set()


def test_every_end_of_an_entry_is_a_label() -> None:
    """The words of the core have one there each; no other can be emitted, because the type has no other."""
    words = {
        *map(outcome_of, (*Outcome, *Exclusion)),
        *(denied(Denial(fact)) for fact in Fact),
        *(denied(Denial(fact, unread=True)) for fact in READ_ELSEWHERE),
        *map(parked, Wait),
    }

    assert words < set(EntryOutcome)
    assert [WORK_OUTCOME.fit(outcome) for outcome in EntryOutcome] == list(EntryOutcome)
    assert first_texts("", "TurnDone", "EntryOutcome") == set()


def test_streams_that_fail_are_counted_by_what_ended_them() -> None:
    metrics = Metrics("1")
    metrics.record(StreamFailed(Stream.MESSAGES, "AutoReconnect", "reopen", FailureCause.NETWORK))
    metrics.record(StreamEnded(Stream.MESSAGES))
    value = metrics.registry.get_sample_value

    for reason, count in (("network", 1), ("invalidate", 1), ("election", 0)):
        assert value("tailer_stream_restarts_total", {"stream": "messages", "reason": reason}) == count


def test_a_backfill_shows_how_far_it_is() -> None:
    metrics = Metrics("1")
    value = metrics.registry.get_sample_value
    metrics.record(LeaseTaken(1, 0.0, after_release=True))
    assert value("tailer_backfill_remaining_documents") == 0
    metrics.record(BackfillAdvanced(200, 100, 800, 1_700_000_000))
    assert value("tailer_backfill_remaining_documents") == 800
    assert value("tailer_backfill_position_timestamp_seconds") == 1_700_000_000
    metrics.record(BackfillAdvanced(200, 100, None, None))
    assert value("tailer_backfill_remaining_documents") is None
    metrics.record(BackfillDone("job", 400, 0, 200, 200))

    assert value("tailer_backfill_documents_total") == 400
    assert value("tailer_backfill_remaining_documents") == 0
    assert value("tailer_backfill_position_timestamp_seconds") is None


def test_an_instance_that_lost_the_lease_shows_nothing_of_its_term() -> None:
    metrics = Metrics("1")
    metrics.record(LeaseTaken(3, 0.0, after_release=True))
    metrics.record(CheckpointSaved(Stream.MESSAGES, 1_000, 0.001))
    metrics.record(GapsLeft(2))
    metrics.record(LeadershipLost(3))
    value = metrics.registry.get_sample_value

    assert (value("tailer_leader"), value("tailer_leader_epoch")) == (0, 3)
    for name in ("tailer_checkpoint_timestamp_seconds", "tailer_checkpoint_last_success_timestamp_seconds"):
        assert value(name, {"stream": "messages"}) is None
    assert value("tailer_stream_gaps_unfilled") == 0
    assert value("tailer_backfill_remaining_documents") is None
    assert value("tailer_checkpoint_writes_total", {"result": "ok"}) == 1


def call(model: str, **more: object) -> Observation:
    return Observation(ObservationId("i"), None, ObservationType.GENERATION, model, 0, 1, model=model, **more)  # type: ignore[arg-type]


def trace_of(*observations: Observation, endpoint: str = "openAI") -> Trace:
    return Trace(
        id=TraceId("a" * 32),
        name="librechat-turn",
        message_id="m",
        document_key="k",
        user_id="u",
        session_id="s",
        tags=(),
        metadata={"outcome": "complete", "endpoint": endpoint},
        observations=observations,
    )


def test_an_acknowledged_turn_is_counted_with_its_tokens_cost_and_tools() -> None:
    metrics = Metrics("1", usage_label_values=5)
    generation = call(
        "gpt-4o",
        usage={"input": 10, "input_cached_tokens": 4, "output": 2},
        cost={"total": 0.25},
        metadata={"cost_source": "billed"},
    )
    tool = Observation(ObservationId("t"), None, ObservationType.TOOL, "search", 0, 1, level=Level.ERROR)
    metrics.count_traces([trace_of(generation, tool)])
    value = metrics.registry.get_sample_value
    who = {"endpoint": "openAI", "model": "gpt-4o"}

    assert value("tailer_llm_turns_total", {**who, "outcome": "complete"}) == 1
    assert value("tailer_llm_tokens_total", {**who, "type": "input_cached_tokens"}) == 4
    assert value("tailer_llm_cost_usd_total", {**who, "source": "billed"}) == 0.25
    assert value("tailer_llm_tool_calls_total", {"tool": "search", "outcome": "error"}) == 1


def test_a_title_counts_under_the_endpoint_of_its_turn_and_is_no_turn() -> None:
    metrics = Metrics("1", usage_label_values=5)
    turn = trace_of(call("m", usage={"input": 1}))
    title = replace(
        trace_of(call("small", usage={"input": 2})), name="librechat-title", metadata={"message_id": "m"}
    )
    metrics.count_traces([turn, title])
    value = metrics.registry.get_sample_value

    assert value("tailer_llm_tokens_total", {"endpoint": "openAI", "model": "small", "type": "input"}) == 2
    assert (
        value("tailer_llm_turns_total", {"endpoint": "openAI", "model": "small", "outcome": "complete"})
        is None
    )


def test_a_later_piece_of_a_turn_is_no_second_turn() -> None:
    metrics = Metrics("1", usage_label_values=5)
    first = trace_of(call("m"))
    metrics.count_traces([first, replace(first, piece="later")])

    assert (
        metrics.registry.get_sample_value(
            "tailer_llm_turns_total", {"endpoint": "openAI", "model": "m", "outcome": "complete"}
        )
        == 1
    )


@given(st.lists(st.text(max_size=200), max_size=40))
def test_however_many_models_and_endpoints_there_are_the_labels_stay_few_and_short(names: list[str]) -> None:
    metrics = Metrics("1", usage_label_values=3)
    for name in names:
        metrics.count_traces([trace_of(call(name, usage={"input": 1}), endpoint=name)])
    samples = [
        sample
        for family in metrics.registry.collect()
        if family.name == "tailer_llm_tokens"
        for sample in family.samples
        if sample.name.endswith("_total")
    ]

    assert len({sample.labels["model"] for sample in samples}) <= 5
    assert all(len(sample.labels["model"]) <= 64 * 6 for sample in samples)
    assert sum(sample.value for sample in samples) == len(names)


def test_the_command_lists_them_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["metrics"]) == 0
    people = capsys.readouterr().out
    assert execute(["metrics", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["metrics"]

    assert [metric["name"] for metric in listed] == list(DECLARED)
    assert all(name in people for name in DECLARED)


def test_what_happens_at_one_of_several_destinations_is_counted_there() -> None:
    """All of them begin at 0, also after another instance took over."""
    metrics = Metrics("1", destinations=["default", "team-a"])
    tell = tell_of(metrics.record, "team-a")
    tell(RequestDone("ok", 0.1, 100))
    tell(DeliveryPaused("http_401", "check the keys"))
    value = metrics.registry.get_sample_value

    for name, number in (("default", 0), ("team-a", 1)):
        at = {"destination": name}
        assert value("tailer_export_requests_total", {"result": "ok", **at}) == number
        assert value("tailer_export_request_duration_seconds_count", at) == number
        assert value("tailer_export_bytes_total", at) == 100 * number
        assert value("tailer_export_paused", at) == number
    metrics.record(LeadershipLost(3))
    assert value("tailer_export_paused", {"destination": "team-a"}) == 0
