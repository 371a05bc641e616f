"""What a row is: each row of the contract's classification, in the shapes of every release; and the times of a turn."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.policy.policies import CopyPolicy, NativePolicy, Policies, TemporaryPolicy
from tailer.core.turn.copies import is_copy
from tailer.core.turn.times import Start
from tailer.core.turn.turns import (
    Exclusion,
    Outcome,
    Sibling,
    TurnRecord,
    Verdict,
    Wait,
    build_turn,
    judge_question,
    judge_response,
)
from tests.recordings import NAMES, truth
from tests.unit.documents import (
    MISSING,
    RESPONSE,
    Document,
    agent,
    agent_row,
    broken,
    completion_row,
    conversation,
    conversation_row,
    message,
    moment,
    object_id,
    old_response_row,
    prompt_row,
    replay,
    response_row,
    stamp,
    tool_part,
    trace_of,
    turn_record,
    usage_metadata,
    user_row,
)

ERROR = {"type": "error", "error": "An error occurred while processing the request: 429 Too many requests"}
TEXT = {"type": "text", "text": "Par"}
UNANSWERED_TOOL = tool_part(output=MISSING)


def verdict(document: Document, *, deadline_passed: bool = False, **fields: Any) -> Verdict:
    return judge_response(message(document), deadline_passed=deadline_passed, policies=Policies(**fields))


FINAL = {
    "a finished answer": (response_row(), Outcome.COMPLETE),
    "an answer without text": (response_row(content=[]), Outcome.COMPLETE),
    "an answer of 0.7.8, in `text`": (old_response_row(text="Paris.", content=MISSING), Outcome.COMPLETE),
    "an answer with an unknown part": (response_row(content=[{"type": "hologram"}]), Outcome.COMPLETE),
    "a provider's error": (response_row(content=[ERROR]), Outcome.ERROR),
    "an error after a partial text": (response_row(content=[TEXT, ERROR]), Outcome.ERROR),
    "an error with the flags of a stop": (response_row(unfinished=True, content=[TEXT, ERROR]), Outcome.ERROR),
    "a denied request": (
        response_row(error=True, text='{"type":"moderation"}', content=MISSING),
        Outcome.ERROR,
    ),
    "an error of 0.7.8": (old_response_row(error=True, text="No key", content=MISSING), Outcome.ERROR),
    "a stop": (response_row(unfinished=True, text="Par", content=[TEXT], langfuseSampled=MISSING), Outcome.ABORTED),
    "a stop before the first word": (
        response_row(unfinished=True, text="", content=[], langfuseSampled=MISSING),
        Outcome.ABORTED,
    ),
    "a stop inside a tool call, with text": (
        response_row(unfinished=True, text="Par", content=[TEXT, UNANSWERED_TOOL]),
        Outcome.ABORTED,
    ),
    "a stop inside a tool call": (
        old_response_row(unfinished=True, text="", content=[UNANSWERED_TOOL]),
        Outcome.ABORTED,
    ),
    "a stop up to 0.8.1": (
        old_response_row(unfinished=False, finish_reason="incomplete", text="Par", content=MISSING),
        Outcome.ABORTED,
    ),
    "a partial text before an error of 0.8.1": (
        old_response_row(unfinished=True, error=False, text="Par", content=MISSING),
        Outcome.ABORTED,
    ),
}  # fmt: skip

WAITING = {
    "a closed tab": (response_row(unfinished=True, text=MISSING, content=[TEXT]), Wait.FINISH),
    "a closed tab before the first word": (response_row(unfinished=True, text=MISSING, content=MISSING), Wait.FINISH),
    "a tool that asks": (
        response_row(
            unfinished=True, text="", content=[TEXT, tool_part(output=MISSING, approval={"actionId": "a"})]
        ),
        Wait.APPROVAL,
    ),
    "a pause of the newest release": (response_row(unfinished=True, text="", content=[UNANSWERED_TOOL]), Wait.APPROVAL),
    "a pause without a sampling decision": (
        old_response_row(
            unfinished=True, text="", content=[UNANSWERED_TOOL], metadata=usage_metadata(1, 2)
        ),
        Wait.APPROVAL,
    ),
    "a pause that was saved again": (
        response_row(unfinished=True, text="", content=[tool_part(), UNANSWERED_TOOL]),
        Wait.APPROVAL,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("document", "outcome"), FINAL.values(), ids=FINAL)
def test_a_final_row_has_its_outcome_before_and_after_the_deadline(
    document: Document, outcome: Outcome
) -> None:
    assert verdict(document) is outcome
    assert verdict(document, deadline_passed=True) is outcome


@pytest.mark.parametrize(("document", "wait"), WAITING.values(), ids=WAITING)
def test_a_row_that_is_not_final_waits_until_its_deadline(document: Document, wait: Wait) -> None:
    assert verdict(document) is wait
    assert verdict(document, deadline_passed=True) is Outcome.PARTIAL


@pytest.mark.parametrize(("document", "_wait"), WAITING.values(), ids=WAITING)
def test_a_row_that_waited_and_was_finished_is_complete(document: Document, _wait: Wait) -> None:
    """The finishing update of a pause does not write `text`."""
    finished = {**document, "unfinished": False, "content": [TEXT, tool_part()]}

    assert verdict(finished) is Outcome.COMPLETE


COPIES = {
    "a fork": response_row(messageId="copy", metadata=usage_metadata(1, 2)),
    "an import without updatedAt": response_row(updatedAt=MISSING),
    "an import without createdAt": response_row(createdAt=MISSING, updatedAt=MISSING),
    "a fork with an error in it": response_row(
        messageId="copy", metadata=usage_metadata(1, 2), content=[ERROR]
    ),
}


@pytest.mark.parametrize("document", COPIES.values(), ids=COPIES)
def test_a_copy_is_recognised_and_gives_no_turn(document: Document) -> None:
    """Nothing was generated for it."""
    assert is_copy(message(document))
    assert verdict(document) is Exclusion.COPIED
    assert verdict(document, copies=CopyPolicy.EXPORT) is Outcome.COPIED


@pytest.mark.parametrize(
    "document",
    [
        response_row(metadata=usage_metadata(1, 2)),
        response_row(_id=object_id(60), createdAt=moment(2)),
        # LibreChat's clock and MongoDB's may stand apart.
        response_row(_id=object_id(500), createdAt=moment(2)),
        response_row(_id=object_id(2), createdAt=moment(500)),
        response_row(_id="not an ObjectId"),
    ],
)
def test_a_genuine_row_is_no_copy(document: Document) -> None:
    """Its run is its own, and it was inserted when it says it was created."""
    assert not is_copy(message(document))
    assert verdict(document) is Outcome.COMPLETE


def test_a_temporary_chat_is_left_alone_unless_the_operator_asks_for_it() -> None:
    document = response_row(isTemporary=True, expiredAt=moment(9_999))

    assert verdict(document) is Exclusion.TEMPORARY
    for policy in (TemporaryPolicy.METADATA, TemporaryPolicy.FULL):
        assert verdict(document, temporary=policy) is Outcome.COMPLETE


def test_a_turn_that_librechat_traced_itself_is_not_doubled() -> None:
    document = response_row(langfuseDestinationIds=["0f" * 32])

    assert verdict(document) is Exclusion.TRACED_NATIVELY
    assert verdict(document, native=NativePolicy.DUPLICATE) is Outcome.COMPLETE
    assert verdict(response_row(langfuseDestinationIds=MISSING)) is Outcome.COMPLETE


def test_a_question_is_no_response() -> None:
    assert verdict(user_row()) is Exclusion.NOT_A_RESPONSE


@pytest.mark.parametrize(
    ("fields", "answered", "deadline_passed", "expected"),
    [
        ({}, False, False, Wait.RESPONSE),
        ({}, False, True, Outcome.UNANSWERED),
        ({}, True, False, Exclusion.ANSWERED),
        ({}, True, True, Exclusion.ANSWERED),
        ({"updatedAt": MISSING}, False, True, Exclusion.COPIED),
        ({"isTemporary": True}, False, True, Exclusion.TEMPORARY),
        ({"isCreatedByUser": False}, False, True, Exclusion.ANSWERED),
    ],
)
def test_a_question_waits_for_its_answer_until_its_deadline(
    fields: Document, *, answered: bool, deadline_passed: bool, expected: Verdict
) -> None:
    found = judge_question(message(user_row(**fields)), answered=answered, deadline_passed=deadline_passed)

    assert found is expected


@given(broken(response_row(), keep=("messageId", "conversationId")))
def test_every_readable_row_has_a_verdict_and_every_turn_can_be_built(document: Document) -> None:
    response = message(document)
    found = judge_response(response, deadline_passed=True)
    record = TurnRecord(response=response, question=message(user_row()))
    turn = build_turn(record, found if isinstance(found, Outcome) else Outcome.COMPLETE)

    assert not isinstance(found, Wait)
    assert turn.start_milliseconds <= turn.end_milliseconds


def test_nothing_makes_no_turn() -> None:
    with pytest.raises(ValueError, match="needs a response or a question"):
        build_turn(TurnRecord(response=None, question=None), Outcome.COMPLETE)


RECORDED_OUTCOMES = {
    "06-abort": ["complete", "aborted", "complete", "aborted", None],
    "07-errors": ["error", "complete", "error", "error", "error", "error", "error", None],
    "20-kill-midstream": ["complete", None, "complete"],
}


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_turn_ends_as_it_really_did(name: str) -> None:
    """Provider answers of 200 are complete, whatever came before; refused and killed turns have no response."""
    turns = truth(name).turns
    expected = RECORDED_OUTCOMES.get(name, ["complete"] * len(turns))
    found: list[str | None] = []
    for turn in turns:
        if turn.response_message_id is None:
            found.append(None)
            continue
        record = replay(name).record(turn.response_message_id)
        assert record.response is not None
        policies = Policies(temporary=TemporaryPolicy.FULL)
        found.append(judge_response(record.response, deadline_passed=False, policies=policies).value)

    assert found == expected


def turn_of(response: Document, outcome: Outcome = Outcome.COMPLETE, **fields: Any) -> Any:
    return build_turn(turn_record(response, user_row(), **fields), outcome)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (response_row(content=[{"type": "text", "text": "Paris"}, {"type": "text", "text": "of course."}]), "Paris of course."),
        (response_row(content=[{"type": "text", "text": "Paris "}, {"type": "text", "text": "is it."}]), "Paris is it."),
        (response_row(content=[{"type": "think", "think": "Hm."}, {"type": "text", "text": "Paris."}]), "Paris."),
        (old_response_row(text="Paris.", content=MISSING), "Paris."),
        (response_row(text="Par", content=[TEXT], unfinished=True), "Par"),
        (response_row(content=[TEXT, ERROR]), "Par"),
        (response_row(error=True, text="No key", content=MISSING), ""),
        (response_row(text=MISSING, content=MISSING), ""),
    ],
)  # fmt: skip
def test_the_answer_is_what_the_model_wrote(response: Document, answer: str) -> None:
    """Neither reasoning nor an error message, from the parts or from the text."""
    assert turn_of(response).answer == answer


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (response_row(content=[ERROR]), "429 Too many requests"),
        (response_row(content=[{"type": "error", "error": "An error occurred while resuming the request: gone"}]), "gone"),
        (response_row(content=[{"type": "error", "error": "first"}, {"type": "error", "error": "last"}]), "last"),
        (response_row(content=[{"type": "error"}]), "the provider's message was not stored"),
        (response_row(error=True, text='{"type":"moderation"}', content=MISSING), '{"type":"moderation"}'),
    ],
)  # fmt: skip
def test_an_error_carries_the_providers_message(response: Document, expected: str) -> None:
    assert turn_of(response, Outcome.ERROR).error_message == expected


def test_reasoning_is_kept_apart() -> None:
    parts = [{"type": "think", "think": "Capital, "}, TEXT, {"type": "think", "think": "of course."}]

    trace = trace_of(turn_record(response_row(content=parts), user_row()))

    assert trace.root.output == TEXT["text"]
    assert trace.observations[1].metadata["reasoning"] == "Capital, of course."


@pytest.mark.parametrize(
    ("title", "expected"), [("Capital of France", "Capital of France"), ("New Chat", None), (None, None)]
)
def test_a_placeholder_is_no_title(title: str | None, expected: str | None) -> None:
    record = turn_record(response_row(), conversation=conversation(conversation_row(title=title)))

    assert build_turn(record, Outcome.COMPLETE).title == expected


def test_the_model_is_the_providers_where_the_ledger_names_it() -> None:
    named = turn_record(response_row(model="gpt-4o"), None, prompt_row(5, model="gpt-4o-2024-08-06"))

    assert build_turn(named, Outcome.COMPLETE).model == "gpt-4o-2024-08-06"


def test_without_a_ledger_the_row_the_agent_or_the_conversation_names_the_model() -> None:
    saved = response_row(model="agent_iACv6m9mgXqVzt5kkBW0V")
    chat = conversation(conversation_row(model="claude-sonnet-4"))

    assert turn_of(response_row(model="gpt-4o"), conversation=chat).model == "gpt-4o"
    assert turn_of(saved, agent=agent(agent_row()), conversation=chat).model == "gpt-4o-mini"
    assert turn_of(saved, conversation=chat).model == "claude-sonnet-4"
    assert turn_of(saved).model is None


def times(record: TurnRecord, outcome: Outcome = Outcome.COMPLETE) -> tuple[int, int]:
    turn = build_turn(record, outcome)
    return turn.start_milliseconds, turn.end_milliseconds


PLAIN = turn_record(response_row(12.5), user_row(3.25))
EARLIER = Sibling("an earlier answer", stamp(8))
ANEW = (EARLIER, Sibling(RESPONSE, stamp(12.5)))


def test_a_turn_lasts_from_its_question_to_its_response() -> None:
    assert times(PLAIN) == (stamp(3.25), stamp(12.5))


def test_an_answer_generated_anew_starts_at_the_touch_of_its_question() -> None:
    """The question itself is older than its first answer."""
    anew = replace(PLAIN, siblings=ANEW, question_touches=(stamp(10),))

    assert times(anew) == (stamp(10), stamp(12.5))


@pytest.mark.parametrize(
    ("touches", "start"),
    [
        ((8.2, 10), 10),
        ((8.2, 8.4, 10, 12.4), 10),
        ((3.3, 8.2, 10, 12.5), 10),
        ((10, 11, 12.45), 10),
        ((8.501,), 8.501),
        ((8.5,), None),
        ((8.2, 8.4), None),
        ((3.3, 8), None),
        ((13, 14), None),
    ],
)
def test_saves_around_an_answer_are_not_the_start_of_the_next(
    touches: tuple[float, ...], start: float | None
) -> None:
    """LibreChat saves the question right after an answer, and right before it stores a stopped or paused one; the
    first save half a second or more after the earlier answer is the click."""
    anew = replace(PLAIN, siblings=ANEW, question_touches=tuple(map(stamp, touches)))

    assert times(anew) == (stamp(12.5 if start is None else start), stamp(12.5))


@given(st.lists(st.integers(0, 20_000), max_size=4), st.integers(4_000, 12_000))
def test_no_touch_makes_a_turn_start_before_an_earlier_answer_or_after_its_own(
    touched: list[int], earlier: int
) -> None:
    base = stamp(0)
    siblings = (Sibling("earlier", base + earlier), Sibling(RESPONSE, stamp(12.5)))
    touches = tuple(sorted(base + at for at in touched))
    start, end = times(replace(PLAIN, siblings=siblings, question_touches=touches))

    assert base + earlier < start <= end == stamp(12.5)
    assert start == end or start in touches


def test_a_save_after_the_answer_was_stored_is_not_its_start() -> None:
    """Of a paused answer, whose end comes much later: it belongs to the answer after it."""
    paused = replace(PLAIN, siblings=ANEW, question_touches=(stamp(14),), finished_milliseconds=stamp(30))

    assert times(paused) == (stamp(30), stamp(30))


API_RESPONSE = "resp_mgib6he0k3x9qz"
"""Its first eight digits are the time at which it was asked for, in base 36."""
ASKED = int("mgib6he0", 36)


@pytest.mark.parametrize(
    ("message_id", "lasted"), [(API_RESPONSE, 9_000), ("resp_0f1e2d3c4b5a", 0), ("resp_no time", 0)]
)
def test_a_call_of_the_agents_api_begins_when_its_id_says(message_id: str, lasted: int) -> None:
    """Its question is stored together with its response, when that is complete."""
    done = datetime.fromtimestamp((ASKED + 9_000) / 1000, UTC)
    response = old_response_row(messageId=message_id, parentMessageId=None, createdAt=done)
    question = user_row(parentMessageId=None, createdAt=done - timedelta(milliseconds=8))

    start, end = times(turn_record(response, question))
    assert (end - start, end) == (lasted, ASKED + 9_000)


def test_the_latest_earlier_answer_counts() -> None:
    """A third answer is not asked for before the second."""
    siblings = (Sibling("first", stamp(4)), *ANEW)
    anew = replace(PLAIN, siblings=siblings, question_touches=(stamp(6), stamp(10)))

    assert times(anew) == (stamp(10), stamp(12.5))


def test_an_answer_generated_anew_without_a_known_touch_has_no_duration() -> None:
    """Better none than one that is wrong by hours."""
    assert times(replace(PLAIN, siblings=(EARLIER,))) == (stamp(12.5), stamp(12.5))


def test_a_first_answer_starts_at_its_question_whatever_was_touched_or_came_later() -> None:
    """LibreChat touches the question after every answer too."""
    later = Sibling("a later answer", stamp(20))
    first = replace(PLAIN, siblings=(Sibling(RESPONSE, stamp(12.5)), later), question_touches=(stamp(12),))

    assert times(first) == (stamp(3.25), stamp(12.5))


def test_a_turn_finished_later_ends_when_it_was_finished() -> None:
    """Closed tab and approval: the row was created at the pause."""
    assert times(replace(PLAIN, finished_milliseconds=stamp(900))) == (stamp(3.25), stamp(900))


def test_a_turn_never_ends_before_its_response_was_stored() -> None:
    assert times(replace(PLAIN, finished_milliseconds=stamp(5))) == (stamp(3.25), stamp(12.5))


def test_a_response_whose_question_is_gone_has_no_duration() -> None:
    assert times(replace(PLAIN, question=None)) == (stamp(12.5), stamp(12.5))


def test_a_question_stored_after_its_answer_gives_no_negative_duration() -> None:
    assert times(turn_record(response_row(12.5), user_row(20))) == (stamp(12.5), stamp(12.5))


def test_an_unanswered_question_is_a_moment() -> None:
    assert times(turn_record(None, user_row(3.25)), Outcome.UNANSWERED) == (stamp(3.25), stamp(3.25))


def test_a_row_without_times_stands_at_its_insertion() -> None:
    record = turn_record(response_row(_id=object_id(7), createdAt=MISSING))

    assert times(record) == (stamp(7), stamp(7))


@pytest.mark.parametrize("name", NAMES)
def test_recorded_turns_last_about_as_long_as_their_provider_requests(name: str) -> None:
    """Start before the first request, end within two seconds after the last; regenerated ones need the stream."""
    for turn in truth(name).turns:
        if turn.response_message_id is None or turn.is_regenerate or name == "23-hitl-tool-approval":
            continue
        start, end = times(replay(name).record(turn.response_message_id))
        first = min(request.started_at for request in turn.requests).timestamp() * 1000
        last = max(request.ended_at for request in turn.requests).timestamp() * 1000
        assert first - 2_000 < start <= first + 50
        assert last - 50 < end < last + 2_000


def test_transactions_without_a_title_give_no_title_usage() -> None:
    turn = build_turn(turn_record(response_row(), None, prompt_row(5), completion_row(6)), Outcome.COMPLETE)

    assert turn.title_usage is None


def start_of(record: TurnRecord) -> tuple[int, Start]:
    turn = build_turn(record, Outcome.COMPLETE)
    return turn.end_milliseconds - turn.start_milliseconds, turn.start


@pytest.mark.parametrize(
    ("touches", "lasted", "start"),
    [
        # Asked again a quarter of a second after a stop; the last save comes right before the answer.
        ((8.265, 12.493), 4_235, Start.ESTIMATED),
        # That last save alone is no start.
        ((12.493,), 0, Start.UNKNOWN),
        ((8.012, 12.493), 0, Start.UNKNOWN),
        ((), 0, Start.UNKNOWN),
        ((10,), 2_500, Start.STORED),
    ],
)
def test_a_start_that_nobody_stored_is_said_to_be_unknown(
    touches: tuple[float, ...], lasted: int, start: Start
) -> None:
    anew = replace(PLAIN, siblings=ANEW, question_touches=tuple(map(stamp, touches)))

    assert start_of(anew) == (lasted, start)


def test_the_longest_tool_is_the_least_that_a_turn_without_a_start_took() -> None:
    tools = [tool_part(runStepDurationMs=1_200), tool_part(runStepDurationMs=300)]
    record = turn_record(response_row(12.5, content=tools), user_row(2), siblings=ANEW)

    assert start_of(record) == (1_200, Start.ESTIMATED)


def test_the_time_of_a_copied_question_is_no_start() -> None:
    """An answer generated in a fork to a question of an hour before."""
    record = turn_record(
        response_row(12.5),
        user_row(-3_600),
        conversation=conversation(conversation_row(createdAt=moment(5))),
    )

    assert start_of(record) == (0, Start.UNKNOWN)
    assert start_of(replace(record, question_touches=(stamp(-3_600), stamp(10)))) == (2_500, Start.STORED)


def test_an_answer_in_the_very_moment_of_its_question_has_no_known_start() -> None:
    assert start_of(turn_record(response_row(2), user_row(2))) == (0, Start.UNKNOWN)
    assert start_of(turn_record(response_row(2.007), user_row(2))) == (7, Start.STORED)


def test_a_pause_that_was_stopped_waits_no_more() -> None:
    """Stop leaves the usage of the row and takes its context away."""
    paused = response_row(
        unfinished=True, text="", content=[UNANSWERED_TOOL], metadata=usage_metadata(128, 31)
    )
    stopped = {**paused, "metadata": {"usage": paused["metadata"]["usage"]}}

    assert verdict(paused) is Wait.APPROVAL
    assert verdict(stopped) is Outcome.ABORTED
