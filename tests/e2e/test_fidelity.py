"""Every recording at its own pace through a real replica set and the real daemon: each turn against the truth.

The truth is what the driver of the recording asked for and what the provider, which was under its control, counted.
"""

from datetime import timedelta

import pytest

from tests.e2e.expectations import TITLE, TURN, ExpectedTurn, Tool, trace_id_of, without_names
from tests.e2e.playing import MARKED_AS_GUESS, UNANSWERED, Played
from tests.recordings import NAMES, TrueTurn

NOT_SENT = ("12-temporary",)
BUCKETS = {"input", "input_cached_tokens", "input_cache_creation", "output"}
LEVELS = {"complete": "DEFAULT", "error": "ERROR", "aborted": "WARNING"}
NO_PARENT = "00000000-0000-0000-0000-000000000000"

each_recording = pytest.mark.parametrize("name", NAMES)


@each_recording
def test_none_is_missing_and_none_is_extra(played: Played, name: str) -> None:
    """Each turn with a response, each question that never got one, each title that was billed; and nothing else."""
    arrived, traffic = played.of(name), played.traffic[name]
    turns = {turn.trace_id for turn in played.expected(name)}
    unanswered = traffic.unanswered() if name in UNANSWERED else {}

    assert len(unanswered) == UNANSWERED.get(name, 0)
    assert {trace.trace_id for trace in arrived.values() if trace.name == TURN} == turns | unanswered.keys()
    titles = {trace.trace_id for trace in arrived.values() if trace.name == TITLE}
    if name != "13-deletes":
        assert titles == set(traffic.titles())
    else:
        firsts = [turn for turn in played.expected(name) if turn.parent_id in first_questions(played, name)]
        assert titles == {trace_id_of(f"title-{turn.response_id}") for turn in firsts}
    assert {trace.name for trace in arrived.values()} <= {TURN, TITLE}
    assert len(traffic.truth.turns) == len(turns) + len(unanswered) + (2 if name in NOT_SENT else 0)


def first_questions(played: Played, name: str) -> set[str]:
    """The questions that began a conversation."""
    return {
        turn.user_message_id
        for turn in played.traffic[name].truth.turns
        if turn.user_parent_message_id == NO_PARENT and turn.user_message_id is not None
    }


@each_recording
def test_texts_people_and_outcome_are_those_of_the_turn(played: Played, name: str) -> None:
    """As they were when the turn ended; what was edited later does not change what was said."""
    arrived = played.of(name)
    for turn in played.expected(name):
        sent = arrived[turn.trace_id]

        assert (sent.session, sent.user) == (turn.session, turn.user)
        assert (sent.root.type, sent.root.input) == ("agent", turn.question)
        assert without_names(sent.root.output) == turn.answer
        assert sent.metadata["outcome"] == turn.outcome
        assert sent.root.level == LEVELS[turn.outcome]
        assert (turn.outcome == "error") is (turn.failure is not None)
        if turn.failure is not None:
            assert sent.root.status == turn.failure.strip()
            assert sent.of("generation")[-1].level == "ERROR"


@each_recording
def test_a_turn_names_its_message_its_parent_and_its_place_among_alternatives(
    played: Played, name: str
) -> None:
    """`branch_…` from the second answer to a question on, and from the second version of a question on."""
    arrived = played.of(name)
    truth = [turn for turn in played.traffic[name].truth.turns if turn.response_message_id is not None]
    by_id = {turn.response_message_id: turn for turn in truth}
    for turn in played.expected(name):
        metadata = arrived[turn.trace_id].metadata

        assert (metadata["message_id"], metadata["parent_message_id"]) == (turn.response_id, turn.parent_id)
        true = by_id.get(turn.response_id)
        branch = (None if true is None else branch_of(true, truth)) or question_branch_of(played, name, turn)
        named = tuple(metadata.get(f"branch_{key}") for key in ("index", "sibling_of", "reason"))
        assert named == (branch or (None, None, None))
        if true is not None and true.response_parent_message_id is not None:
            assert turn.parent_id == true.response_parent_message_id


def branch_of(turn: TrueTurn, turns: list[TrueTurn]) -> tuple[str, str | None, str] | None:
    """The place of a turn among the answers to its question, None for the first."""
    answers = [each for each in turns if each.response_parent_message_id == turn.response_parent_message_id]
    if answers.index(turn):
        return str(answers.index(turn)), answers[0].response_message_id, "regenerated"
    return None


def question_branch_of(played: Played, name: str, turn: ExpectedTurn) -> tuple[str, str, str] | None:
    """The place of a turn's question among the rows under the same parent, None for the first."""
    questions = [
        event.full_document
        for event in played.traffic[name].recording.events
        if event.collection == "messages" and event.operation == "insert" and event.full_document is not None
    ]
    questions = [row for row in questions if row["isCreatedByUser"] and row["conversationId"] == turn.session]
    (own,) = [row for row in questions if row["messageId"] == turn.parent_id]
    family = [row["messageId"] for row in questions if row["parentMessageId"] == own["parentMessageId"]]
    index = family.index(turn.parent_id)
    answered = {
        event.full_document["parentMessageId"]
        for event in played.traffic[name].recording.events
        if event.collection == "messages" and event.full_document is not None
    }
    # A question without an answer was not edited when the next one took its place: it was asked again.
    reason = "edited" if answered & {*family} - {turn.parent_id} else "asked_again"
    return (str(index), family[0], reason) if index else None


@each_recording
def test_tokens_are_the_providers_wherever_it_told_them_and_marked_where_not(
    played: Played, name: str
) -> None:
    """In exclusive buckets, none of them zero by invention, summed over the generations."""
    arrived = played.of(name)
    for turn in played.expected(name):
        calls = arrived[turn.trace_id].of("generation")
        sources = {call.metadata["usage_source"] for call in calls}

        assert all(call.usage.keys() <= BUCKETS for call in calls)
        if turn.tokens is None:
            assert sources <= MARKED_AS_GUESS
        else:
            assert arrived[turn.trace_id].tokens == turn.tokens
            assert sources == {"reported"}


@each_recording
def test_a_generation_names_the_model_and_says_where_its_cost_comes_from(played: Played, name: str) -> None:
    """Cost is what LibreChat charged, turn and title each by itself; what it did not charge for has none."""
    arrived = played.of(name)
    charged = played.traffic[name].dollars() if name != "13-deletes" else {}
    for turn in played.expected(name):
        sent = arrived[turn.trace_id]
        calls = sent.of("generation")

        assert {call.model or call.metadata.get("model") for call in calls} <= turn.models
        known = {"billed", "reported", "estimated"}
        if name != "13-deletes":
            sources = {call.metadata["cost_source"] for call in calls}
            assert sources <= (known if turn.trace_id in charged else {"unknown"})
            assert sent.dollars == pytest.approx(charged.get(turn.trace_id, 0.0), abs=1e-12)
    for trace_id, tokens in played.traffic[name].titles().items():
        if name != "13-deletes":
            assert arrived[trace_id].tokens == tokens
            assert arrived[trace_id].dollars == pytest.approx(charged[trace_id], abs=1e-12)


@each_recording
def test_tools_stand_in_order_with_arguments_and_output(played: Played, name: str) -> None:
    """As many as the provider asked for, under the root."""
    arrived = played.of(name)
    truth = {turn.response_message_id: turn for turn in played.traffic[name].truth.turns}
    for turn in played.expected(name):
        sent = arrived[turn.trace_id]
        tools = [Tool(tool.name, tool.input, tool.output) for tool in sent.of("tool")]

        assert tools == list(turn.tools)
        true = truth.get(turn.response_id)
        asked = [request.tool_name for request in true.requests if request.tool_name] if true else []
        assert [tool.name for tool in tools] == asked


@each_recording
def test_a_turn_lasts_from_its_question_to_its_answer(played: Played, name: str) -> None:
    """Within what the driver saw: it posted before, and its stream ended after; a closed tab hides the end."""
    arrived = played.of(name)
    truth = {turn.response_message_id: turn for turn in played.traffic[name].truth.turns}
    slack = timedelta(milliseconds=250)
    for turn in played.expected(name):
        root, true = arrived[turn.trace_id].root, truth.get(turn.response_id)

        assert root.start <= root.end
        if true is not None:
            assert true.posted_at - slack <= root.start
            assert root.end <= true.stream_ended_at + slack


@each_recording
def test_scores_are_only_where_people_judged_or_corrected(played: Played, name: str) -> None:
    """No score for anything else."""
    of_recording = set(played.of(name))
    scored = {score["traceId"] for score in played.fake.scores.posted} & of_recording

    assert bool(scored) is (name in ("05-edit-in-place", "11-feedback"))


def test_no_trace_is_of_no_recording(played: Played) -> None:
    """What was not played cannot arrive."""
    known = {trace_id for name in NAMES for trace_id in played.of(name)}

    assert set(played.fake.trace_ids()) == known
    assert played.fake.state.spans.deleted_trace_ids == []
