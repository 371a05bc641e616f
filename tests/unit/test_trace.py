"""The trace of a turn: what it repeats, what its root shows, and that the same facts give the same bytes."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailer.core.identity import title_trace_id, turn_trace_id, unanswered_trace_id
from tailer.core.policy.policies import CopyPolicy, Policies
from tailer.core.stream.hints import ChangeHint, Interest, classify_message
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.touches import Touches
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.export import Exported
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.trace.otlp import SpanContext, encode_trace
from tailer.core.turn.record import Then
from tailer.core.turn.turns import Wait
from tests.recordings import NAMES, truth
from tests.unit.documents import (
    MISSING,
    QUESTION,
    RESPONSE,
    Document,
    Replay,
    agent,
    agent_row,
    broken,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    moment,
    observations,
    old_response_row,
    prompt_row,
    replay,
    response_row,
    stamp,
    tool_part,
    trace_of,
    traces_of,
    turn_record,
    usage_metadata,
    user_row,
)

CONTEXT = SpanContext("test")


def encode(traces: Sequence[Trace]) -> dict[str, bytes]:
    return {trace.id: encode_trace(trace, CONTEXT) for trace in traces}


def test_a_plain_turn_shows_question_answer_person_conversation_and_time() -> None:
    record = turn_record(
        response_row(12.5, metadata=usage_metadata(108, 13)),
        user_row(3.25),
        prompt_row(108),
        completion_row(13),
        conversation=conversation(conversation_row(tags=["work", "travel"])),
    )
    found = trace_of(record, tags=("team-a",))
    root = found.root

    assert found.id == turn_trace_id(RESPONSE)
    assert (found.name, found.message_id, found.tags) == ("librechat-turn", RESPONSE, ("team-a",))
    assert (found.user_id, found.session_id) == (record.response.user_id, record.response.conversation_id)  # type: ignore[union-attr]
    assert found.document_key == record.response.key  # type: ignore[union-attr]
    assert (root.input, root.output) == ("What is the capital of France?", "Paris.")
    assert (root.start_milliseconds, root.end_milliseconds) == (stamp(3.25), stamp(12.5))
    assert (root.parent_id, root.level, root.status_message) == (None, Level.DEFAULT, None)
    assert found.metadata.items() >= {
        "message_id": RESPONSE,
        "parent_message_id": QUESTION,
        "outcome": "complete",
        "endpoint": "openAI",
        "sender": "GPT-4o",
        "conversation_title": "Capital of France",
        "conversation_tags": "work, travel",
    }.items()  # fmt: skip


def test_the_root_is_named_after_who_answered() -> None:
    """The agent, else what LibreChat calls the model, else the model; the trace's own name stays."""
    named = trace_of(turn_record(response_row(), user_row(), agent=agent(agent_row())))
    labelled = trace_of(turn_record(response_row(sender="Our model"), user_row()))
    bare = trace_of(turn_record(response_row(sender=MISSING), user_row()))
    alone = trace_of(turn_record(None, user_row()), deadline_passed=True)

    assert [trace.root.name for trace in (named, labelled, bare, alone)] == [
        "Weather clerk",
        "Our model",
        "gpt-4o",
        "turn",
    ]
    assert {trace.name for trace in (named, labelled, bare, alone)} == {"librechat-turn"}


def test_every_file_has_a_key_of_its_own() -> None:
    """Langfuse shows a value as a file only where it is exactly one reference."""
    record = replace(turn_record(response_row(), user_row()), media=("@@@one@@@", "@@@two@@@"))

    assert trace_of(record).root.metadata == {"media_1": "@@@one@@@", "media_2": "@@@two@@@"}


def test_an_agents_turn_names_the_agent() -> None:
    found = trace_of(turn_record(response_row(), user_row(), agent=agent(agent_row())))

    assert found.metadata["agent_id"] == agent_row()["id"]
    assert found.metadata["agent_name"] == "Weather clerk"


ENDINGS = {
    "error": (
        response_row(content=[{"type": "text", "text": "Par"}, {"type": "error", "error": "429 Too many"}]),
        (Level.ERROR, "429 Too many", "Par"),
    ),
    "aborted": (
        response_row(content=[{"type": "text", "text": "Par"}], text="Par", unfinished=True),
        (Level.WARNING, "stopped before the answer was complete", "Par"),
    ),
    "partial": (
        response_row(content=[{"type": "text", "text": "Par"}], text=MISSING, unfinished=True),
        (Level.WARNING, "the answer was never finished", "Par"),
    ),
    "complete": (response_row(content=[]), (Level.DEFAULT, None, None)),
}


@pytest.mark.parametrize(("document", "expected"), ENDINGS.values(), ids=ENDINGS)
def test_an_ending_is_marked_on_the_root_and_keeps_the_partial_answer(
    document: Document, expected: tuple[Level, str | None, str | None]
) -> None:
    root = trace_of(turn_record(document, user_row()), deadline_passed=True).root

    assert (root.level, root.status_message, root.output) == expected


def test_a_question_without_answer_is_an_error_under_an_id_of_its_own() -> None:
    """The answer may still come, and is then another trace."""
    record = turn_record(None, user_row())
    found = trace_of(record, deadline_passed=True)

    assert export(record) is Wait.RESPONSE
    assert found.id == unanswered_trace_id(QUESTION)
    assert len(found.observations) == 1
    assert (found.root.input, found.root.output) == ("What is the capital of France?", None)
    assert (found.root.level, found.root.status_message) == (Level.ERROR, "no answer was ever stored")


def test_a_title_is_a_trace_of_its_own_with_its_own_numbers() -> None:
    record = turn_record(
        response_row(metadata=usage_metadata(108, 13)),
        user_row(),
        prompt_row(142, context="title", model="gpt-4o-mini"),
        completion_row(5, context="title", model="gpt-4o-mini"),
        conversation=conversation(conversation_row()),
    )
    turn, title = traces_of(record, tags=("team-a",))

    assert title.id == title_trace_id(RESPONSE)
    assert (title.name, title.tags) == ("librechat-title", ("team-a", "title"))
    assert (title.session_id, title.user_id) == (turn.session_id, turn.user_id)
    assert (title.root.output, title.root.model) == ("Capital of France", "gpt-4o-mini")
    assert title.root.usage == {"input": 142, "output": 5}
    assert title.root.input == "What is the capital of France?"
    assert total_usage(turn) == {"input": 108, "output": 13}


@pytest.mark.parametrize(
    ("answered", "stored", "charged", "lasts"),
    [
        (2, 4.5, 1, (2, 4.5)),
        (2, None, 3, (2, 3)),
        (2, None, 1, (0.001, 1)),
        (0, None, 1, (0.001, 1)),
        (0, None, 0, (0.001, 0.001)),
    ],
)
def test_a_title_lasts_from_the_answers_end_to_what_stored_it(
    answered: float, stored: float | None, charged: float, lasts: tuple[float, float]
) -> None:
    """One that was charged before was made beside the answer. It never begins with its turn: a session is shown in the
    order of its traces' times, and begins with a question."""
    rows = [make(5, context="title", createdAt=moment(charged)) for make in (prompt_row, completion_row)]
    then = Then(titled_milliseconds=None if stored is None else stamp(stored))
    turn, title = traces_of(turn_record(response_row(answered), user_row(0), *rows, then=then))

    assert (title.root.start_milliseconds, title.root.end_milliseconds) == tuple(map(stamp, lasts))
    assert title.root.start_milliseconds > turn.root.start_milliseconds
    assert title.root.metadata["timing"] == ("not stored" if lasts[0] == lasts[1] else "estimated")


def test_a_title_that_took_two_calls_is_a_tree_with_both() -> None:
    rows = [make(5, context="title") for make in (prompt_row, completion_row) * 3]
    _, title = traces_of(turn_record(response_row(), user_row(), *rows))

    check_tree(title)
    assert total_usage(title) == {"input": 15, "output": 15}


def total_usage(trace: Trace) -> dict[str, int]:
    total: dict[str, int] = {}
    for observation in trace.observations:
        for bucket, tokens in (observation.usage or {}).items():
            total[bucket] = total.get(bucket, 0) + tokens
    return total


def test_a_turn_without_title_has_one_trace() -> None:
    assert len(traces_of(turn_record(response_row(), user_row(), prompt_row(1)))) == 1


def test_a_copy_has_no_numbers_and_is_tagged() -> None:
    record = turn_record(response_row(messageId="copy", metadata=usage_metadata(108, 13)), user_row())
    found = trace_of(record, policies=Policies(copies=CopyPolicy.EXPORT))

    assert total_usage(found) == {}
    assert all(observation.cost is None for observation in found.observations)
    assert "copied" in found.tags
    assert found.metadata["outcome"] == "copied"


def test_long_texts_are_cut_and_the_trace_says_how_much() -> None:
    document = response_row(content=[{"type": "text", "text": "y" * 300}, tool_part(output="z" * 300)])
    found = trace_of(turn_record(document, user_row(text="x" * 300)), bounds=Bounds(field_bytes=100))

    assert str(found.root.input).startswith("x" * 100 + "… [cut: 200")
    assert str(found.root.output).startswith("y" * 100 + "… [cut: 200")
    assert int(found.metadata["content_cut_bytes"]) >= 600


def test_a_short_trace_does_not_speak_of_cuts() -> None:
    assert "content_cut_bytes" not in trace_of(turn_record(response_row(), user_row())).metadata


def test_too_many_observations_are_counted_and_left_out() -> None:
    tools = [tool_part(id=f"call_{number}") for number in range(30)]
    found = trace_of(turn_record(response_row(content=tools), user_row()), bounds=Bounds(observations=10))

    assert len(found.observations) == 11
    assert found.metadata["observations_left_out"] == "21"


def test_all_texts_of_a_trace_together_stay_within_its_limit() -> None:
    """Question and answer first, then what is inside."""
    parts = [{"type": "text", "text": "a" * 500}, *(tool_part(output="ü" * 400, args="{") for _ in range(50))]
    found = trace_of(turn_record(response_row(content=parts), user_row()), bounds=Bounds(trace_bytes=2_000))
    texts = [str(tool.output).split("… [cut")[0] for tool in observations(found, ObservationType.TOOL)]

    assert found.root.output == "a" * 500
    assert sum(len(text.encode()) for text in texts) <= 2_000


def check_tree(trace: Trace) -> None:
    """One root; every parent stands before its children; no id twice; nothing ends before it starts."""
    known: set[str] = set()
    for number, observation in enumerate(trace.observations):
        assert observation.id not in known
        assert (observation.parent_id is None) == (number == 0)
        assert observation.parent_id is None or observation.parent_id in known
        assert observation.start_milliseconds <= observation.end_milliseconds
        known.add(observation.id)


ENTRIES = st.lists(
    st.builds(
        lambda make, tokens, context: make(tokens, context=context),
        st.sampled_from([prompt_row, completion_row]),
        st.integers(0, 1_000),
        st.sampled_from(["message", "title", "subagent", "abort", "activity-label"]),
    ),
    max_size=8,
)


@given(
    broken(response_row(), keep=("messageId", "conversationId")),
    broken(user_row(), keep=("messageId", "conversationId")),
    broken(response_row(messageId="earlier"), keep=("messageId", "conversationId")),
    ENTRIES,
)
@settings(max_examples=60)
def test_whatever_the_rows_hold_the_turn_becomes_a_trace_that_can_be_sent(
    response: Document, question: Document, ancestor: Document, entries: list[Document]
) -> None:
    """Or nothing, for one of the known reasons; never an exception."""
    record = turn_record(response, question, *entries, history=(message(ancestor),))
    made = export(record, deadline_passed=True)

    if isinstance(made, Exported):
        for trace in made.traces:
            check_tree(trace)
            assert encode_trace(trace, CONTEXT) == encode_trace(trace, CONTEXT)
    else:
        assert made in ("not_a_response", "copied", "temporary", "traced_natively", "answered")


@given(st.sets(st.integers(0, 11), max_size=12), st.randoms(use_true_random=False))
def test_every_tool_of_a_turn_is_an_observation_whatever_was_billed(
    chosen: set[int], order: random.Random
) -> None:
    """Arguments, output and order stay; no text is lost between the calls."""
    parts = [
        tool_part(f"tool-{number}") if number % 3 == 0 else {"type": "text", "text": f"t{number}"}
        for number in sorted(chosen)
    ]
    contexts = [
        order.choice(["message", "subagent", "title", "sequential"]) for _ in range(order.randrange(5))
    ]
    rows = [
        row
        for context in contexts
        for row in (prompt_row(1, context=context), completion_row(1, context=context))
    ]
    found = trace_of(turn_record(old_response_row(content=parts), user_row(), *rows))

    expected = [f"tool-{number}" for number in sorted(chosen) if number % 3 == 0]
    assert [tool.name for tool in observations(found, ObservationType.TOOL)] == expected
    written = " ".join(
        str(item.output["content"])
        for item in observations(found, ObservationType.GENERATION)
        if isinstance(item.output, Mapping) and item.output["content"]
    )
    assert written == " ".join(f"t{number}" for number in sorted(chosen) if number % 3)
    check_tree(found)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_turns_make_sound_trees_with_the_truths_texts(name: str) -> None:
    """Question and owner as they were asked; the sum of the generations is the provider's where it is known."""
    for turn in truth(name).turns:
        if turn.response_message_id is None or turn.is_temporary:
            continue
        record = replay(name).record(turn.response_message_id)
        for trace in traces_of(record):
            check_tree(trace)
        found = trace_of(record)
        assert found.id == turn.native_trace_id
        assert found.session_id == turn.conversation_id
        assert found.user_id == turn.user_id
        # 05 edits questions and answers in place later.
        assert found.root.input == turn.text or name == "05-edit-in-place"
        if turn.usage_is_known:
            assert total_usage(found)["output"] == turn.usage.output_tokens


def tell(played: Replay, hints: Sequence[ChangeHint], groups: Sequence[int]) -> dict[str, bytes]:
    """What the daemon would send after these hints, read in batches of these sizes, when everything has settled."""
    turns, touches = OpenTurns(settle_seconds=2, park_seconds=600), Touches()
    now = 0.0
    pending = list(hints)
    sizes = list(groups)
    while pending:
        size = sizes.pop() if sizes else len(pending)
        batch, pending = pending[:size], pending[size:]
        for hint in batch:
            interest = classify_message(hint)
            if interest is Interest.TOUCH:
                touches.note(hint)
            elif interest in (Interest.QUESTION, Interest.RESPONSE):
                turns.open(interest, hint, now, age_seconds=0)
                if interest is Interest.RESPONSE and hint.parent_message_id is not None:
                    turns.answer(hint.parent_message_id)
        now += 0.1
    sent: dict[str, bytes] = {}
    for entry in turns.take_due(now + 10_000, 10_000):
        record = played.records[entry.key.document_key]
        response, question = record.response, record.question
        told_too = replace(
            record,
            finished_milliseconds=entry.ended_milliseconds(
                unfinished=response is not None and response.unfinished
            ),
            question_touches=touches.of(question.key) if question is not None else (),
        )
        made = export(told_too, deadline_passed=True)
        # Of a question there is a trace only when nobody ever answered.
        if isinstance(made, Exported) and (record.response is not None or not record.siblings):
            sent.update(encode(made.traces))
    return sent


PLAYED = ("03-regenerate", "06-abort", "07-errors", "23-hitl-tool-approval")


@pytest.mark.parametrize("name", PLAYED)
@given(data=st.data())
@settings(max_examples=15)
def test_any_order_repetition_and_grouping_of_the_same_hints_gives_the_same_bytes(
    name: str, data: st.DataObject
) -> None:
    """Documents are truth and hints only say where to look."""
    played = replay(name)
    repeated = [*played.hints, *data.draw(st.lists(st.sampled_from(played.hints), max_size=30))]
    shuffled = data.draw(st.randoms(use_true_random=False)).sample(repeated, len(repeated))
    groups = data.draw(st.lists(st.integers(1, 7), max_size=10))

    assert tell(played, shuffled, groups) == tell(played, played.hints, [])


@pytest.mark.parametrize("name", PLAYED)
def test_hints_of_a_recording_give_every_turn_its_trace(name: str) -> None:
    played = replay(name)
    expected = {
        turn_trace_id(turn.response_message_id)
        for turn in truth(name).turns
        if turn.response_message_id is not None
    }

    assert expected <= tell(played, played.hints, []).keys()


def test_a_recorded_answer_generated_anew_starts_when_it_was_asked_for() -> None:
    """The question's row is minutes older; its touch is within the second of the click."""
    played = replay("03-regenerate")
    touches = Touches()
    for hint in played.hints:
        if classify_message(hint) is Interest.TOUCH:
            touches.note(hint)
    for turn in truth("03-regenerate").turns:
        assert turn.response_message_id is not None
        record = played.record(turn.response_message_id)
        assert record.question is not None
        began = touches.of(record.question.key)
        root = trace_of(replace(record, question_touches=began)).root
        assert abs(root.start_milliseconds - turn.posted_at.timestamp() * 1000) < 500


def test_a_recorded_approval_is_one_trace_over_the_whole_pause() -> None:
    """The row was stored at the pause; the finishing event comes seconds later."""
    played = replay("23-hitl-tool-approval")
    sent = tell(played, played.hints, [])
    turns = [turn for turn in truth("23-hitl-tool-approval").turns if turn.response_message_id is not None]

    assert len(
        [trace_id for trace_id in sent if trace_id in {turn.native_trace_id for turn in turns}]
    ) == len(turns)


def test_generations_say_where_their_numbers_come_from() -> None:
    """On every one of them, in every recording."""
    for name in NAMES:
        for record in replay(name).records.values():
            made: Any = export(record, deadline_passed=True)
            for trace in made.traces if isinstance(made, Exported) else ():
                for item in observations(trace, ObservationType.GENERATION):
                    check_sources(item)


def check_sources(item: Observation) -> None:
    usage_source, cost_source = item.metadata["usage_source"], item.metadata["cost_source"]
    assert usage_source in ("reported", "billed", "estimated", "output_only", "unknown")
    assert cost_source in ("reported", "billed", "estimated", "unknown")
    assert (item.usage is None) == (usage_source == "unknown")
    assert item.cost is None or cost_source != "unknown"
