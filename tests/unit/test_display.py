"""What the demo shows: a turn as one line that fits, numbers with their doubts, and the sums at the end."""

import io
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tailer.core.identity import ObservationId, TraceId, title_trace_id, turn_trace_id
from tailer.core.trace.build import TITLE_TRACE_NAME, TURN_TRACE_NAME
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.trace.totals import Totals, add_totals
from tailer.demo.display import (
    Display,
    colourful,
    count_columns,
    fit,
    format_cost,
    format_seconds,
    format_tokens,
    shorten_models,
)
from tailer.demo.finished_turn import FinishedTurn, is_title, read_turn
from tailer.demo.programme import BEGIN_EVERY, Programme, make_programme
from tailer.demo.screen import Screen
from tailer.demo.stage.recording import demo_recordings
from tailer.demo.summary import Summary, percentile
from tailer.events import DeliveryRetried

AT = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001 - a person reads local time
TURN = FinishedTurn(
    who="Ada",
    models=("gpt-4o",),
    spending=Totals(12, 3, 0.00039),
    took_seconds=0.25,
    outcome="complete",
    tools=(),
    question="Tell me a joke",
)
HARDEST = FinishedTurn(
    who="Maximiliane 漢字漢字漢字",
    models=("claude-sonnet-4-20250514-with-a-long-name", "another"),
    spending=Totals(123_456_789, 9_999, 123_456.789, tokens_estimated=True, cost_estimated=True),
    took_seconds=86_399,
    outcome="unanswered",
    tools=("search", "a_tool_with_a_very_long_name"),
    question="first line\nsecond \x1b[31mline\x07 with\tmuch text 漢字漢字漢字漢字 e\u0301e\u0301 🐙" * 9,
)


def call(
    model: str | None = "gpt-4o",
    usage: dict[str, int] | None = None,
    cost: float | None = None,
    **metadata: str,
) -> Observation:
    return Observation(
        id=ObservationId("1" * 16),
        parent_id=ObservationId("0" * 16),
        type=ObservationType.GENERATION,
        name="generation",
        start_milliseconds=1_000,
        end_milliseconds=2_000,
        model=model,
        usage=usage,
        cost=None if cost is None else {"total": cost},
        metadata=metadata,
    )


def trace(*steps: Observation, name: str = TURN_TRACE_NAME, question: object = "Why?") -> Trace:
    root = Observation(
        id=ObservationId("0" * 16),
        parent_id=None,
        type=ObservationType.AGENT,
        name="turn",
        start_milliseconds=1_000,
        end_milliseconds=3_500,
        level=Level.DEFAULT,
        input=question,
    )
    return Trace(
        id=TraceId("a" * 32),
        name=name,
        message_id="message",
        document_key="key",
        user_id="user-1",
        session_id="session",
        tags=(),
        metadata={"outcome": "complete"},
        observations=(root, *steps),
    )


def test_a_line_stands_under_its_headings() -> None:
    """Every column begins, or for numbers ends, where its heading does."""
    display = Display(100)
    heading, line = display.heading(), display.turn(TURN, AT)

    assert line == (
        "05:06:07 Ada       gpt-4o                 12     3  $0.00039 0.25s complete Tell me a joke"
    )
    for name, value in (("who", "Ada"), ("model", "gpt-4o"), ("outcome", "complete"), ("question", "Tell")):
        assert heading.index(name) == line.index(value)
    for name, value in ((" in ", "12 "), (" out ", " 3 "), ("cost", "$0.00039"), ("took", "0.25s")):
        assert heading.index(name) + len(name) == line.index(value) + len(value)


@pytest.mark.parametrize("columns", [80, 81, 99, 100, 120, 132])
def test_no_line_is_wider_than_its_terminal(columns: int) -> None:
    """Not with the longest values, wide signs, combining signs, line ends or escape sequences."""
    line = Display(columns).turn(HARDEST, AT)

    wide = sum(unicodedata.east_asian_width(sign) in {"W", "F"} for sign in line)
    combining = sum(unicodedata.combining(sign) > 0 for sign in line)
    assert columns - 2 <= len(line) + wide - combining <= columns
    assert line.isprintable()
    assert line.endswith("…")


def test_a_terminal_that_is_too_narrow_or_very_wide_gets_a_readable_line() -> None:
    """Below 80 columns a terminal wraps; beyond 132 nobody follows a line."""
    assert len(Display(20).turn(HARDEST, AT)) <= 80
    assert Display(20).heading() == Display(80).heading()
    assert count_columns(Display(500).turn(HARDEST, AT)) <= 132


@pytest.mark.parametrize(
    ("outcome", "colour"),
    [("complete", "32"), ("error", "31"), ("unanswered", "31"), ("aborted", "33"), ("partial", "33")],
)
def test_colour_marks_the_outcome_and_takes_no_room(outcome: str, colour: str) -> None:
    """Green for complete, red for failed, yellow for what stopped early; without colour the same signs."""
    turn = replace(TURN, outcome=outcome)
    coloured = Display(100, colourful).turn(turn, AT)

    assert f"\x1b[{colour}m{outcome[:8]}" in coloured.replace("unanswe…", "unanswer")
    assert coloured.replace(f"\x1b[{colour}m", "").replace("\x1b[0m", "") == Display(100).turn(turn, AT)


def test_an_outcome_that_the_demo_does_not_know_has_no_colour() -> None:
    """A new one is shown all the same."""
    assert "\x1b" not in Display(100, colourful).turn(replace(TURN, outcome="copied"), AT)


def test_tools_stand_before_the_question() -> None:
    """In parentheses, as the legend says."""
    turn = replace(TURN, tools=("calculator", "search"))

    assert Display(132).turn(turn, AT).endswith("complete (calculator, search) Tell me a joke")


def test_a_question_that_is_not_shown_is_said_not_to_be() -> None:
    """TAILER_CONTENT=none."""
    assert Display(100).turn(replace(TURN, question=""), AT).endswith("(not shown)")


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "?"),
        (0, "~0"),
        (9_999, "~9999"),
        (10_000, "~10k"),
        (999_999, "~999k"),
        (5_000_000, "~5M"),
    ],
)
def test_tokens_fit_five_columns_and_tell_their_doubts(count: int | None, shown: str) -> None:
    """`~` before LibreChat's estimate, `?` for an unknown number."""
    assert format_tokens(count, is_estimate=True) == shown
    assert format_tokens(count, is_estimate=False) == shown.removeprefix("~")
    assert len(shown) <= 5


@pytest.mark.parametrize(
    ("spending", "shown"),
    [
        (Totals(cost=None), "?"),
        (Totals(cost=0.0), "$0"),
        (Totals(cost=0.000388), "$0.00039"),
        (Totals(cost=0.5, cost_estimated=True), "~$0.50000"),
        (Totals(cost=12.345), "$12.35"),
    ],
)
def test_cost_is_in_dollars(spending: Totals, shown: str) -> None:
    """Five places below a dollar: a turn costs less than a cent."""
    assert format_cost(spending) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0.00s"), (0.256, "0.26s"), (14.83, "14.8s"), (206, "206s")]
)
def test_durations_have_as_many_places_as_matter(seconds: float, shown: str) -> None:
    """At most five columns up to a day."""
    assert format_seconds(seconds) == shown


def test_several_models_are_counted() -> None:
    """Two models that answer side by side."""
    assert shorten_models(()) == "?"
    assert shorten_models(("a",)) == "a"
    assert shorten_models(("a", "b", "c")) == "a +2"


def test_a_cut_text_never_splits_a_wide_sign() -> None:
    """It takes two columns or none."""
    assert fit("漢字漢字", 4) == "漢… "
    assert fit("漢字", 4) == "漢字"
    assert fit("ab", 4, on_the_right=True) == "  ab"


def test_a_turn_is_read_from_its_trace() -> None:
    """Models once each, tools without the name of their server, the buckets of one direction together."""
    tool = replace(call(), type=ObservationType.TOOL, name="remember_mcp_probe", model=None)
    turn = read_turn(
        trace(
            call(usage={"input": 10, "input_cached_tokens": 5, "output": 2}, cost=0.25),
            tool,
            call(usage={"input": 1, "output": 1}, cost=0.5),
            tool,
            question='[[tool:remember|{"a": [1]}]] please do',
        ),
        {"user-1": "Ada"},
    )

    assert turn == FinishedTurn(
        who="Ada",
        models=("gpt-4o",),
        spending=Totals(16, 3, 0.75),
        took_seconds=2.5,
        outcome="complete",
        tools=("remember",),
        question="please do",
    )


def test_a_number_that_no_call_tells_is_unknown_and_not_zero() -> None:
    """Output only, cost unknown, the model in the metadata: LibreChat tells no more about some calls."""
    untold = read_turn(trace(replace(call(model=None, usage={"output": 7}), metadata={"model": "o3"})), {})

    assert untold.spending == Totals(None, 7, None)
    assert untold.models == ("o3",)
    assert untold.who == "user-1"
    assert read_turn(trace(call()), {}).spending == Totals()


def test_one_estimated_call_makes_the_sum_an_estimate() -> None:
    """A sum is as good as its worst part."""
    calls = [call(usage={"input": 1}), call(usage={"input": 2}, usage_source="estimated")]

    assert add_totals(calls) == Totals(3, tokens_estimated=True)
    assert add_totals([call(cost=1.0, cost_source="estimated")]).cost_estimated


def test_withheld_content_leaves_the_question_empty() -> None:
    """Whatever stands there instead of text."""
    assert read_turn(trace(question=None), {}).question == ""


def test_a_title_is_no_turn() -> None:
    """It is a trace of its own."""
    assert is_title(trace(name=TITLE_TRACE_NAME))
    assert not is_title(trace())


def test_the_summary_adds_up_turns_titles_models_and_delays() -> None:
    """The sums are those of the calls; the median and the 95th percentile are delays that happened."""
    summary = Summary(settle_seconds=3)
    for number in range(20):
        finished = trace(call(usage={"input": 100, "output": 10}, cost=0.25))
        turn = replace(read_turn(finished, {}), outcome="error" if number == 0 else "complete")
        summary.add_turn(turn, finished, delay_seconds=number + 1)
    summary.add_title(trace(call("mini", {"input": 1, "output": 1}, 0.125), name=TITLE_TRACE_NAME))
    summary.lag_seconds = 1

    lines = summary.lines()

    assert (summary.turns, summary.titles, summary.traces) == (20, 1, 21)
    assert lines[0] == "turns    20 acknowledged: 19 complete, 1 error"
    table = [line.split() for line in lines if "$" in line]
    assert table == [
        ["gpt-4o", "20", "2,000", "200", "$5.00"],
        ["mini", "1", "1", "1", "$0.12500"],
        ["together", "21", "2,001", "201", "$5.12"],
    ]
    assert "delay    10.0 s median, 19.0 s p95 from finished answer to acknowledged trace;" in lines
    assert any("less than 2 s behind" in line for line in lines)
    assert not any("estimated" in line or line.startswith("lost") for line in lines)


def test_the_summary_tells_doubts_and_losses() -> None:
    """How many turns have estimates or no numbers, and how many never became a trace."""
    summary = Summary(settle_seconds=3)
    guessed = trace(call(usage={"input": 4}, usage_source="estimated"))
    for finished in (guessed, guessed, trace(call(model=None))):
        summary.add_turn(read_turn(finished, {}), finished, delay_seconds=1)
    summary.lost = 2

    text = "\n".join(summary.lines())

    assert "tokens: estimated by LibreChat for 2 turns, unknown for 1" in text
    assert "lost     2 " in text
    assert "(unknown)" in text


def test_the_summary_of_nothing_says_so() -> None:
    """Ctrl-C before the first turn."""
    assert Summary(settle_seconds=3).lines() == ["turns    none was finished"]


def test_percentiles_are_values_that_occurred() -> None:
    """Also of a single one."""
    assert percentile([7.0], 0.5) == percentile([7.0], 0.95) == 7.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0


@pytest.fixture(scope="module")
def programme() -> Programme:
    return make_programme(demo_recordings(), at=datetime(2026, 3, 4, tzinfo=UTC), salt="first")


def test_the_programme_begins_at_the_asked_time_and_fits_a_minute(programme: Programme) -> None:
    """One recording after another begins, the longest first, so that something happens all the time."""
    asked = datetime(2026, 3, 4, tzinfo=UTC)
    assert asked - timedelta(seconds=1) < programme.begins_at <= asked
    assert programme.ends_at - programme.begins_at < timedelta(seconds=45)
    durations = [recording.duration for recording in programme.recordings]
    assert durations == sorted(durations, reverse=True)
    for earlier, later in pairwise(programme.recordings):
        gap = later.started_at - earlier.started_at
        assert abs(gap - BEGIN_EVERY) < timedelta(seconds=1)


def test_the_programme_owes_a_trace_for_each_answer_and_for_each_title(programme: Programme) -> None:
    """By the fresh ids, which another salt changes; and it knows everybody's name."""
    documents = [
        (event.collection, event.full_document)
        for recording in programme.recordings
        for event in recording.events
        if event.full_document is not None
    ]
    answers = {
        document["messageId"]
        for collection, document in documents
        if collection == "messages" and not document["isCreatedByUser"]
    }
    assert programme.turns == {turn_trace_id(answer) for answer in answers}
    assert len(programme.titles) == 14
    assert programme.titles < {title_trace_id(answer) for answer in answers}
    assert {document["user"] for collection, document in documents if collection == "messages"} == set(
        programme.names
    )
    other = make_programme(demo_recordings(), at=datetime(2026, 3, 4, tzinfo=UTC), salt="second")
    assert not programme.turns & other.turns


def test_the_screen_replaces_what_its_stream_cannot_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of another age shows question marks; the demo goes on."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")

    Screen(stream).show_turn(HARDEST, AT)

    assert written.getvalue().isascii()
    assert written.getvalue().count(b"\n") == 1


def test_a_trouble_of_the_daemon_is_one_line() -> None:
    """Its level, its name and its words, cut to the width; said again only when it is another trouble."""
    stream = io.StringIO()
    screen = Screen(stream)

    for attempt in range(3):
        screen.show_trouble(DeliveryRetried("status 503 " * 30, attempt, attempt / 3))

    assert stream.getvalue().startswith("warning: delivery retried reason=status 503")
    assert stream.getvalue().count("\n") == 1
    assert len(stream.getvalue().rstrip("\n")) <= 100
    screen.show_trouble(DeliveryRetried("http_500", 1, 0.5))
    assert stream.getvalue().endswith("\nwarning: delivery retried reason=http_500\n")
