"""What happens to a turn after it was sent: feedback comes, changes and goes; texts are edited in place."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import observation_id, turn_trace_id
from tailer.core.librechat.messages import Message
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import ContentChoice, CopyPolicy, Policies
from tailer.core.trace.content_policy import MakeMasker
from tailer.core.trace.export import Exported
from tailer.core.trace.followup import (
    Edit,
    EditedText,
    Score,
    ScoreType,
    SentTurn,
    feedback_digest,
    feedback_score_id,
    find_edit,
    make_correction_score,
    make_edit_trace,
    make_feedback_score,
    mark_text,
)
from tailer.core.trace.observations import ObservationType, Trace
from tailer.core.trace.otlp import SpanContext, encode_trace
from tests.recordings import truth
from tests.unit.documents import (
    ANY_TEXT,
    RESPONSE,
    VALUES,
    Document,
    export,
    message,
    replay,
    response_row,
    stamp,
    turn_record,
    usage_metadata,
    user_row,
)

ADDRESS = "anna@example.org"


def mask() -> Masker:
    return Masker(compile_rules([], []), b"a deployment's own key")


EDITED = stamp(60)


def exported(
    response: Document | None = None, *, choice: ContentChoice = ContentChoice.FULL, **fields: Any
) -> Exported:
    record = turn_record(response or response_row(), user_row())
    policies = fields.pop("policies", Policies(content=choice))
    found = export(record, policies=policies, mask=mask, **fields)
    assert isinstance(found, Exported)
    return found


def sent_turn(choice: ContentChoice = ContentChoice.FULL) -> SentTurn:
    return exported(choice=choice).sent


def liked(**feedback: Any) -> Message:
    return message(response_row(feedback={"rating": "thumbsUp", **feedback}))


def scored(found: Message, choice: ContentChoice = ContentChoice.FULL, masker: MakeMasker = mask) -> Score:
    assert found.feedback is not None
    return make_feedback_score(sent_turn(choice), found, found.feedback, masker)


def test_feedback_is_the_score_that_librechat_itself_would_make() -> None:
    """Same id and name, so that both describe one thumb and never two."""
    score = scored(liked(tag="not_helpful", text="Too short."))
    trace_id = turn_trace_id(RESPONSE)

    assert score == Score(
        id=f"feedback-{trace_id}",
        trace_id=trace_id,
        name="user-feedback",
        type=ScoreType.BOOLEAN,
        value=1,
        comment="not_helpful — Too short.",
        metadata={"message_id": RESPONSE, "rating": "thumbsUp", "tag": "not_helpful"},
        timestamp_milliseconds=stamp(2),
    )
    assert feedback_score_id(trace_id) == score.id


@pytest.mark.parametrize(
    ("fields", "comment"),
    [
        ({}, None),
        ({"tag": "other"}, "other"),
        ({"text": "Good"}, "Good"),
        ({"tag": {"key": "other", "label": "x"}}, "other"),
        ({"tag": "", "text": ""}, None),
    ],
)
def test_the_comment_is_what_was_said_with_the_thumb(fields: Document, comment: str | None) -> None:
    assert scored(liked(**fields)).comment == comment


def test_a_thumb_down_is_zero() -> None:
    assert scored(liked(rating="thumbsDown")).value == 0


def test_a_changed_thumb_overwrites_the_score() -> None:
    """Id and time are its identity in Langfuse: another time would be a second score."""
    up, down = scored(liked()), scored(liked(rating="thumbsDown", text="No."))

    assert (up.id, up.timestamp_milliseconds) == (down.id, down.timestamp_milliseconds)


def test_what_was_said_is_shown_as_far_as_the_turn_was() -> None:
    """A tag comes from LibreChat's list, a text from a person."""
    said = liked(tag="other", text=f"Write to {ADDRESS}")

    assert scored(said).comment == f"other — Write to {ADDRESS}"
    masked = scored(said, ContentChoice.MASKED).comment
    assert masked is not None
    assert masked.startswith("other — Write to [email:")
    assert scored(said, ContentChoice.NONE).comment == "other"


def test_a_tag_that_librechat_does_not_have_is_a_text() -> None:
    """The database takes any value: one that another program wrote, for example."""
    said = liked(tag=f"Write to {ADDRESS}", text="Good")
    full, masked, none = (scored(said, choice) for choice in ContentChoice)

    assert (full.comment, full.metadata["tag"]) == (f"Write to {ADDRESS} — Good", f"Write to {ADDRESS}")
    assert ADDRESS not in str(masked)
    assert masked.metadata["tag"].startswith("Write to [email:")
    assert (none.comment, none.metadata) == (None, {"message_id": RESPONSE, "rating": "thumbsUp"})
    assert len(str(scored(liked(tag="x" * 15_000_000)).comment)) < 1_000_100


@given(st.dictionaries(st.sampled_from(["rating", "tag", "text"]), VALUES | st.sampled_from(["thumbsUp", "thumbsDown"])))  # fmt: skip
def test_no_broken_feedback_stops_the_turn(stored: Document) -> None:
    found = message(response_row(feedback=stored))

    assert (found.feedback is None) == (stored.get("rating") not in ("thumbsUp", "thumbsDown"))
    if found.feedback is not None:
        assert scored(found).value in (0, 1)
        assert feedback_digest(found.feedback)


def test_feedback_is_new_when_anything_of_it_differs() -> None:
    """Its row is saved again for many reasons; its own `_id` is new with each write and means nothing."""
    kinds = [
        liked(),
        liked(rating="thumbsDown"),
        liked(tag="other"),
        liked(text="other"),
        liked(tag="other", text="x"),
    ]
    digests = [feedback_digest(found.feedback) for found in kinds]

    assert len(set(digests)) == len(kinds)
    assert None not in digests
    assert feedback_digest(None) is None
    assert feedback_digest(liked(_id="1").feedback) == feedback_digest(liked(_id="2").feedback)


def test_a_turn_says_whether_it_has_feedback_and_a_copy_never_does() -> None:
    """The copied thumb belongs to the original."""
    thumb = {"rating": "thumbsUp"}
    copy = response_row(feedback=thumb, metadata=usage_metadata(1, 1), messageId="copy")

    assert exported(response_row(feedback=thumb)).has_feedback
    assert not exported(response_row(feedback=None)).has_feedback
    assert not exported(copy, policies=Policies(copies=CopyPolicy.EXPORT)).has_feedback


def edit_of(text: str, sent: SentTurn, which: EditedText = EditedText.ANSWER) -> Edit | None:
    return find_edit(which, sent, text, EDITED)


def follow(sent: SentTurn, texts: list[str]) -> list[Edit]:
    """The edits of an answer that is seen with these texts, one after the other, as they are recorded."""
    found = []
    for text in texts:
        edit = edit_of(text, sent)
        if edit is not None:
            found.append(edit)
            sent = replace(sent, answer=edit.after, edits=sent.edits + 1)
    return found


def test_a_row_that_still_says_what_was_sent_was_not_edited() -> None:
    """Late and repeated events find nothing to do."""
    sent = sent_turn()

    assert edit_of("Paris.", sent) is None
    assert edit_of("What is the capital of France?", sent, EditedText.QUESTION) is None
    assert edit_of("anything", replace(sent, question=None), EditedText.QUESTION) is None


def test_an_edit_knows_the_lengths_before_and_after() -> None:
    edit = edit_of("Paris, of course.", sent_turn())
    assert edit is not None

    assert (edit.before.characters, edit.after.characters) == (6, 17)
    assert (edit.written_milliseconds, edit.number) == (EDITED, 0)


def test_there_and_back_again_are_two_edits() -> None:
    edits = follow(sent_turn(), ["Lyon.", "Lyon.", "Paris.", "Paris."])

    assert [edit.text for edit in edits] == ["Lyon.", "Paris."]
    assert [edit.number for edit in edits] == [0, 1]
    traces = [make_edit_trace(sent_turn(), edit, None) for edit in edits]
    assert len({trace.record_id for trace in traces}) == 2
    assert len({trace.root.id for trace in traces}) == 2


@given(st.lists(ANY_TEXT, max_size=6))
def test_an_edit_is_found_exactly_where_a_text_differs_from_the_one_before(texts: list[str]) -> None:
    edits = follow(sent_turn(), texts)
    changes = sum(1 for before, after in pairwise(["Paris.", *texts]) if before != after)

    assert len(edits) == changes
    assert [edit.number for edit in edits] == list(range(changes))
    assert all(edit.before != edit.after for edit in edits)


@given(ANY_TEXT)
def test_what_is_remembered_of_a_text_does_not_hold_it(text: str) -> None:
    mark = mark_text(text)

    assert mark.characters == len(text)
    assert len(mark.digest) == 24
    assert len(text) < 4 or text not in str(mark)


def shown(
    text: str, choice: ContentChoice, which: EditedText = EditedText.ANSWER
) -> tuple[Trace, Score | None]:
    sent = sent_turn(choice)
    edit = edit_of(text, sent, which)
    assert edit is not None
    return make_edit_trace(sent, edit, mask), make_correction_score(sent, edit, mask)


def test_an_edit_is_an_event_at_the_end_of_the_turn_and_tells_when_it_was_written() -> None:
    """The first version stays as it was sent, and an edit of next week does not make a trace of a week."""
    trace, _ = shown("Lyon.", ContentChoice.FULL)
    event = trace.root

    assert (trace.id, trace.name, trace.piece) == (turn_trace_id(RESPONSE), "librechat-turn", "edit:0")
    assert (event.type, event.name, event.output) == (ObservationType.EVENT, "edit", "Lyon.")
    assert event.parent_id == observation_id(RESPONSE, "root")
    assert event.start_milliseconds == event.end_milliseconds == exported().traces[0].root.end_milliseconds
    assert event.metadata == {
        "edited": "answer",
        "old_characters": "6",
        "new_characters": "5",
        "edited_at": "2026-03-01T12:01:00.000Z",
    }


def test_a_piece_repeats_nothing_that_would_overwrite_the_trace() -> None:
    """Person, conversation and tags are those the turn was sent with."""
    whole = exported(tags=("team-a",))
    edit = edit_of("Lyon.", whole.sent)
    assert edit is not None
    trace = make_edit_trace(whole.sent, edit, mask)

    assert (trace.user_id, trace.session_id, trace.tags) == (
        whole.traces[0].user_id,
        whole.traces[0].session_id,
        ("team-a",),
    )
    assert trace.metadata.items() <= whole.traces[0].metadata.items()


def test_the_correction_of_an_answer_is_the_text_it_was_corrected_to() -> None:
    _, correction = shown("Lyon.", ContentChoice.FULL)

    assert correction is not None
    assert (correction.name, correction.type, correction.value) == ("output", ScoreType.CORRECTION, "Lyon.")
    assert correction.trace_id == turn_trace_id(RESPONSE)


def test_a_second_correction_takes_the_place_of_the_first() -> None:
    sent = sent_turn()
    corrections = [make_correction_score(sent, edit, mask) for edit in follow(sent, ["Lyon.", "Nice."])]

    assert len({(found.id, found.timestamp_milliseconds) for found in corrections if found is not None}) == 1


def test_an_edited_question_is_no_correction() -> None:
    trace, correction = shown("And of Spain?", ContentChoice.FULL, EditedText.QUESTION)

    assert correction is None
    assert trace.root.metadata["edited"] == "question"
    assert trace.root.output == "And of Spain?"


def test_an_answer_that_was_emptied_is_an_edit_and_no_correction() -> None:
    trace, correction = shown("", ContentChoice.FULL)

    assert correction is None
    assert trace.root.metadata["new_characters"] == "0"


def test_without_content_an_edit_is_its_lengths_and_there_is_no_correction() -> None:
    trace, correction = shown(f"Write to {ADDRESS}", ContentChoice.NONE)

    assert correction is None
    assert trace.root.output is None
    assert trace.root.metadata["new_characters"] == "25"
    assert ADDRESS.encode() not in encode_trace(trace, SpanContext("test"))


def test_a_masked_turn_has_masked_edits() -> None:
    trace, correction = shown(f"Write to {ADDRESS}", ContentChoice.MASKED)

    assert correction is not None
    for text in (trace.root.output, correction.value):
        assert str(text).startswith("Write to [email:")
        assert ADDRESS not in str(text)


def test_an_edit_of_many_megabytes_is_cut_like_any_text() -> None:
    """Langfuse drops what is longer than it takes, without a word."""
    trace, correction = shown("x" * 15_000_000, ContentChoice.FULL)

    assert correction is not None
    assert len(str(correction.value)) < 1_000_100
    assert len(encode_trace(trace, SpanContext("test"))) < 1_010_000
    assert trace.root.metadata["new_characters"] == "15000000"
    assert str(trace.root.output).endswith("bytes left out]")


def test_no_beginning_of_a_value_stands_before_the_cut_of_a_masked_edit() -> None:
    trace, correction = shown(f"{'x' * 999_990} {ADDRESS} {'y ' * 9_000}", ContentChoice.MASKED)

    assert correction is not None
    for text in (trace.root.output, correction.value):
        assert "anna" not in str(text)
        assert str(text).endswith("bytes left out]")


def test_without_a_masker_a_masked_turn_has_no_text_of_an_edit() -> None:
    sent = exported(choice=ContentChoice.MASKED).sent
    (edit,) = follow(sent, [f"Write to {ADDRESS}"])

    assert make_edit_trace(sent, edit, None).root.output is None
    assert make_correction_score(sent, edit, None) is None


def test_recorded_thumbs_are_scores() -> None:
    """11 gives, changes and takes back; its rows stand as they stood last."""
    ratings = set()
    for turn in truth("11-feedback").turns:
        assert turn.response_message_id is not None
        response = replay("11-feedback").record(turn.response_message_id).response
        assert response is not None
        ratings.add(response.feedback.rating if response.feedback is not None else None)

    assert ratings
    assert ratings <= {"thumbsUp", "thumbsDown", None}
