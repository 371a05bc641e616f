"""The catalogue and what is exposed are one; labels are closed; the usage metrics are bounded."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tailer.cli import execute
from tailer.core.hints import Stream
from tailer.core.identity import ObservationId, TraceId
from tailer.core.observations import Level, Observation, ObservationType, Trace
from tailer.events import (
    CheckpointSaved,
    ClockCompared,
    DeliveryRetried,
    HintsRead,
    LeadershipLost,
    LettersCounted,
    OplogSeen,
)
from tailer.flow.transmission import _RESULTS
from tailer.metrics import Metrics, catalogue
from tailer.metrics.catalogue import CATALOGUE, USAGE
from tailer.metrics.declaration import Kind, Metric
from tailer.mongo.failures import Reaction
from tailer.web.health import State

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
    assert values(catalogue.RESTARTS, "reason") == {reaction.value for reaction in Reaction}
    assert values(catalogue.REQUESTS, "result") == set(_RESULTS.values())


def test_a_failure_that_never_happened_is_zero_so_that_the_first_is_an_increase() -> None:
    registry = Metrics("1").registry

    for name, labels in (
        ("tailer_dead_letters_total", {"reason": "rejected"}),
        ("tailer_export_requests_total", {"result": "auth"}),
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
    metrics.record(LettersCounted(3))
    metrics.record(DeliveryRetried("http_500", 1, 0.1))
    value = metrics.registry.get_sample_value

    assert value("tailer_stream_events_total", {"stream": "messages", "op": "insert"}) == 2
    assert (value("tailer_stream_last_event_timestamp_seconds", {"stream": "messages"}) or 0) > 1_700_000_000
    assert value("tailer_clock_skew_seconds") == -1.5
    assert value("tailer_dead_letters_kept") == 3
    assert value("tailer_export_retries_total") == 1


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
        usage={"input": 10, "input_cache_read": 4, "output": 2},
        cost={"total": 0.25},
        metadata={"cost_source": "billed"},
    )
    tool = Observation(ObservationId("t"), None, ObservationType.TOOL, "search", 0, 1, level=Level.ERROR)
    metrics.count_traces([trace_of(generation, tool)])
    value = metrics.registry.get_sample_value
    who = {"endpoint": "openAI", "model": "gpt-4o"}

    assert value("tailer_llm_turns_total", {**who, "outcome": "complete"}) == 1
    assert value("tailer_llm_tokens_total", {**who, "type": "input_cache_read"}) == 4
    assert value("tailer_llm_cost_usd_total", {**who, "source": "billed"}) == 0.25
    assert value("tailer_llm_tool_calls_total", {"tool": "search", "outcome": "error"}) == 1


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
