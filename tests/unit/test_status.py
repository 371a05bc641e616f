"""What the status page says of a moment, of an hour, and of a trace."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import TraceId
from tailer.core.policy.policies import TracesShown
from tailer.core.stream.hints import Stream
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.events import DeliveryPaused, HintsRead, StreamGapFound
from tailer.health import Condition
from tailer.metrics import Metrics, catalogue, sending_catalogue
from tailer.web.page.figures import DestinationFigures, Figures, StreamFigures, read_figures
from tailer.web.page.judgement import Tone, judge
from tailer.web.page.report import make_report
from tailer.web.page.samples import HISTORY_SECONDS, SAMPLE_SECONDS, STEPS, History, Sample
from tailer.web.page.traces import RecentTraces, view_trace
from tailer.web.page.troubles import Troubles

NOW = 1_800_000_000.0
WELL = Condition("streaming", (), 0, 10.0)
QUIET = Figures(
    streams={"messages": StreamFigures(0.0, is_connected=True, stored_at_seconds=NOW - 1)},
    export_lag_seconds=0.0,
)


def test_a_quiet_daemon_is_well() -> None:
    judgement = judge(WELL, QUIET, now_seconds=NOW)

    assert (judgement.tone, judgement.attention) == (Tone.GOOD, ())
    assert "every finished turn is acknowledged" in judgement.sentence


def test_why_it_is_not_ready_comes_before_everything_else() -> None:
    broken = Condition("streaming", ("stream messages has not answered",), 0, 10.0)
    figures = Figures(streams=QUIET.streams, export_lag_seconds=90.0, dead_letters_kept=2)
    judgement = judge(broken, figures, now_seconds=NOW)

    assert judgement.tone is Tone.BAD
    assert judgement.attention[0] == "Stream messages has not answered"
    assert any(text.startswith("2 turns are dead letters") for text in judgement.attention)
    assert any("waited for more than a minute" in text for text in judgement.attention)


def test_that_it_is_not_ready_while_it_starts_is_no_news() -> None:
    starting = Condition("starting", ("the daemon is starting",), 0, 1.0)

    assert judge(starting, Figures(), now_seconds=NOW).tone is Tone.WAITING
    assert judge(starting, Figures(), now_seconds=NOW).attention == ()


def test_a_young_oplog_is_no_worry_and_one_that_runs_out_is() -> None:
    young = StreamFigures(0.0, stored_at_seconds=NOW, oplog_headroom_seconds=600)
    short = StreamFigures(0.0, stored_at_seconds=NOW, oplog_headroom_seconds=3_000)

    assert (
        judge(WELL, Figures({"messages": young}, oplog_window_seconds=601), now_seconds=NOW).tone is Tone.GOOD
    )
    assert (
        judge(WELL, Figures({"messages": short}, oplog_window_seconds=36_000), now_seconds=NOW).tone
        is Tone.WARNING
    )


def test_a_stale_position_and_a_slow_reader_are_named() -> None:
    stream = StreamFigures(75.0, is_connected=True, stored_at_seconds=NOW - 200)
    found = judge(WELL, Figures({"messages": stream}), now_seconds=NOW).attention

    assert [text.split(" ")[0] for text in found] == ["Reading", "The"]


def test_of_several_destinations_the_one_that_is_late_is_named() -> None:
    """One that is away is told by the daemon itself, with what is kept for it; once, whether it is ready or not."""
    figures = Figures(
        streams=QUIET.streams,
        export_lag_seconds=300.0,
        destinations={
            "default": DestinationFigures(1.0, 0, is_away=False),
            "team-a": DestinationFigures(90.0, 0, is_away=False),
            "team-b": DestinationFigures(300.0, 7, is_away=True),
        },
    )

    condition = replace(WELL, troubles=("destination team-b has accepted nothing for 300 s",))
    judgement = judge(condition, figures, now_seconds=NOW)
    halted = judge(replace(condition, problems=condition.troubles), figures, now_seconds=NOW)

    assert judgement.tone is Tone.WARNING
    assert judgement.attention == (
        "Destination team-b has accepted nothing for 300 s",
        "A finished turn has waited for more than a minute to be acknowledged by team-a",
    )
    assert (halted.tone, halted.attention) == (Tone.BAD, judgement.attention)


def test_each_destination_is_reported_by_its_name() -> None:
    metrics = Metrics("1.0", destinations=["default", "team-a"])
    metrics.gauge(catalogue.STREAM_LAG).labels("messages").set(0)
    metrics.gauge(sending_catalogue.EXPORT_LAG).labels("team-a").set(12.34)
    metrics.gauge(sending_catalogue.OWED).labels("team-a").set(5)
    metrics.gauge(sending_catalogue.AWAY).labels("team-a").set(1)
    metrics.gauge(sending_catalogue.PAUSED).labels("team-a").set(1)
    metrics.counter(sending_catalogue.TRACES).labels("default").inc(3)

    report = make_report(
        "1.0",
        WELL,
        read_figures(metrics.registry),
        History().course(0.0),
        Troubles(),
        RecentTraces(TracesShown.NONE),
        now_seconds=NOW,
    )

    assert report["destinations"] == {
        "default": {"away": False, "refuses": False, "lag_seconds": 0.0, "owed": 0, "traces_total": 3},
        "team-a": {"away": True, "refuses": True, "lag_seconds": 12.3, "owed": 5, "traces_total": 0},
    }
    assert (report["lag"]["export_seconds"], report["traces_total"]) == (12.3, 3)


def test_the_history_holds_an_hour_whatever_comes() -> None:
    history = History()
    for number in range(5_000):
        history.add(Sample(number * SAMPLE_SECONDS, read_lag_seconds=float(number)))

    assert len(history) == HISTORY_SECONDS / SAMPLE_SECONDS + 1
    assert not history.is_due(4_999 * SAMPLE_SECONDS + 1)
    assert history.is_due(5_000 * SAMPLE_SECONDS)


def test_where_nobody_looked_the_plot_has_a_hole() -> None:
    history = History()
    for at in (0.0, 5.0, 10.0, 100.0, 105.0):
        history.add(Sample(at, read_lag_seconds=1.0, traces_total=at))
    course = history.course(106.0)

    assert len(course.read_lag_seconds) == STEPS
    assert course.span_seconds == 300.0
    assert [value for value in course.read_lag_seconds if value is not None] == [1.0] * 5
    # A trace a second is sixty a minute, in the hole nothing is known.
    assert {round(value) for value in course.traces_per_minute if value is not None} == {60}
    assert course.traces_per_minute[-8] is None


@given(st.lists(st.floats(0, 7_000), min_size=2, max_size=60, unique=True).map(sorted))
def test_no_rate_is_above_what_was_counted(times: list[float]) -> None:
    history = History()
    for at in times:
        history.add(Sample(at, events_total=at * 2, read_lag_seconds=at))
    course = history.course(times[-1])
    known = [value for value in course.events_per_minute if value is not None]

    assert all(0 <= value <= 120.001 for value in known)
    assert (
        max((value for value in course.read_lag_seconds if value is not None), default=times[-1]) == times[-1]
    )


def observation(name: str, parent: str | None, kind: ObservationType, **more: object) -> Observation:
    return Observation(name, parent, kind, name, 1_000, 3_500, **more)  # type: ignore[arg-type]


def a_trace() -> Trace:
    return Trace(
        id=TraceId("a" * 32),
        name="librechat-turn",
        message_id="secret-message",
        document_key="secret-key",
        user_id="secret-user",
        session_id="secret-conversation",
        tags=(),
        metadata={"outcome": "error"},
        observations=(
            observation("turn", None, ObservationType.AGENT, input="the question", output="the answer"),
            observation(
                "call",
                "turn",
                ObservationType.GENERATION,
                model="gpt-4o",
                usage={"input": 10, "input_cache_read": 5, "output": 2},
                cost={"total": 0.5},
                input=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                level=Level.ERROR,
                status_message="refused",
            ),
            observation("search", "call", ObservationType.TOOL, input={"q": "x"}),
            observation("lost", "nobody", ObservationType.TOOL),
        ),
    )


def test_a_trace_is_shown_as_a_tree_without_who_asked() -> None:
    view = view_trace(a_trace(), with_text=False)

    assert [child["name"] for child in view["root"]["children"]] == ["call", "lost"]
    assert [child["name"] for child in view["root"]["children"][0]["children"]] == ["search"]
    assert (view["input_tokens"], view["output_tokens"], view["cost_usd"]) == (15, 2, 0.5)
    assert view["duration_seconds"] == 2.5
    assert not {"the question", "the answer", "refused", "secret"} & set(str(view).split("'"))
    assert "secret" not in str(view)


def test_texts_are_shown_where_they_are_asked_for_and_cut() -> None:
    view = view_trace(a_trace(), with_text=True)
    call = view["root"]["children"][0]

    assert view["root"]["input"] == "the question"
    assert (call["status"], call["input"]) == ("refused", "2 messages: the conversation so far")
    assert call["children"][0]["input"] == '{"q":"x"}'
    assert "secret" not in str(view)


def test_only_the_last_traces_are_kept_and_none_where_none_are_shown() -> None:
    kept, none = RecentTraces(TracesShown.TREE), RecentTraces(TracesShown.NONE)
    for traces in (kept, none):
        traces.add([a_trace()] * 100)

    assert (len(kept.newest_first()), none.newest_first()) == (15, [])


def test_troubles_are_counted_by_kind_and_their_texts_forgotten() -> None:
    troubles = Troubles()
    troubles.record(DeliveryPaused("http_401", "a hint"), 10.0)
    troubles.record(StreamGapFound(Stream.MESSAGES, 1, 2, "code_286"), 11.0)
    troubles.record(DeliveryPaused("http_403", "another"), 12.0)
    troubles.record(HintsRead(Stream.MESSAGES, 1, 0, 0, 0), 13.0)

    assert [(one.kind, one.count, one.last_seconds) for one in troubles.latest_first()] == [
        ("delivery_paused", 2, 12.0),
        ("stream_gap_found", 1, 11.0),
    ]
    assert "hint" not in str(troubles.latest_first())


def test_a_report_says_what_is_not_known_and_guesses_nothing() -> None:
    report = make_report(
        "1.0",
        Condition("standby", (), 0, 5.0),
        Figures(),
        History().course(0.0),
        Troubles(),
        RecentTraces(TracesShown.NONE),
        now_seconds=NOW,
    )

    assert report["lag"] == {"read_seconds": None, "export_seconds": None}
    assert report["oplog"] == {"headroom_seconds": None, "window_seconds": None}
    assert (report["checkpoint_age_seconds"], report["ready"], report["streams"]) == (None, True, {})


def test_outcomes_that_never_came_are_not_listed() -> None:
    """Counters of a closed set begin at 0; the page would be a list of noughts. What is open is listed also when none
    is."""
    report = make_report(
        "1.0",
        WELL,
        Figures(
            open_turns={"awaiting_settle": 0.0},
            turns={"complete": 3.0, "denied_model": 0.0},
            dead_letters={"rejected": 0.0},
        ),
        History().course(0.0),
        Troubles(),
        RecentTraces(TracesShown.NONE),
        now_seconds=NOW,
    )

    assert report["turns"] == {"complete": 3}
    assert report["dead_letters"]["since_start"] == {}
    assert report["open_turns"] == {"awaiting_settle": 0}
