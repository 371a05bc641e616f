"""What is special about single recordings: each against what the driver did there."""

import json
from collections import Counter
from datetime import timedelta

import pytest

from tailer.demo.stage.recording import Document
from tests.e2e.expectations import TURN, trace_id_of
from tests.e2e.playing import MARKED_AS_GUESS, UNANSWERED, Played


def test_regenerated_answers_start_when_they_were_asked_for(played: Played) -> None:
    """LibreChat saves the question again at that moment; its own time is that of the first answer."""
    name = "03-regenerate"
    traffic, arrived = played.traffic[name], played.of(name)
    first, *again, _ = traffic.truth.turns

    touches = [
        event.update.updated_fields["updatedAt"]
        for event in traffic.recording.events
        if event.update is not None and event.document_key["_id"] == question_key(played, name)
    ]
    for turn in again:
        assert turn.is_regenerate
        root = arrived[trace_id_of(str(turn.response_message_id))].root
        started = min(touch for touch in touches if touch > turn.posted_at)
        assert abs(root.start - started) < timedelta(milliseconds=1)
        assert timedelta(0) < root.end - root.start < timedelta(seconds=1)
    assert arrived[trace_id_of(str(first.response_message_id))].root.start < touches[0]


def question_key(played: Played, name: str) -> object:
    """The `_id` of the first question of a recording."""
    return next(
        event.document_key["_id"]
        for event in played.traffic[name].recording.events
        if event.collection == "messages" and event.operation == "insert"
    )


def test_edits_in_place_are_events_beside_the_first_version(played: Played) -> None:
    """One for the answer and one for the question, with old and new length and the text; the answer is corrected."""
    name = "05-edit-in-place"
    first = played.expected(name)[0]
    sent = played.of(name)[first.trace_id]
    rows = {row["isCreatedByUser"]: row for row in edited_rows(played, name)}
    texts = {"question": rows[True]["text"], "answer": rows[False]["content"][0]["text"]}
    before = {"question": first.question, "answer": first.answer or ""}
    events = {str(event.metadata["edited"]): event for event in sent.of("event")}

    assert events.keys() == {"question", "answer"}
    for which, event in events.items():
        assert event.name == "edit"
        assert event.output == texts[which] != before[which]
        assert event.metadata["old_characters"] == str(len(before[which]))
        assert event.metadata["new_characters"] == str(len(texts[which]))
    assert (sent.root.input, sent.root.output) == (first.question, first.answer)
    (correction,) = [score for score in played.fake.scores.posted if score["traceId"] == first.trace_id]
    assert correction["dataType"] == "CORRECTION"
    assert correction["value"] == texts["answer"]


def test_a_stop_and_a_closed_tab_are_never_both(played: Played) -> None:
    """Two were stopped and keep what had been said; the one whose tab was closed went on to its end."""
    arrived = played.of("06-abort")
    outcomes = {turn.question: turn.outcome for turn in played.expected("06-abort")}
    sent = {trace.root.input: trace for trace in arrived.values() if trace.name == TURN}

    assert Counter(outcomes.values()) == {"complete": 3, "aborted": 2}
    assert sent.keys() == outcomes.keys()
    for question, trace in sent.items():
        if outcomes[question] == "aborted":
            assert (trace.root.level, trace.metadata["outcome"]) == ("WARNING", "aborted")
            assert str(trace.root.output).startswith("chunk0 chunk1 ")
            assert {call.metadata["usage_source"] for call in trace.of("generation")} <= MARKED_AS_GUESS
    closed = sent["Slow and the tab gets closed [[slow]]"]
    assert closed.tokens == {"input": 110, "output": 118}
    assert closed.root.end - closed.root.start > timedelta(seconds=14)


def test_files_are_named_and_their_bytes_stay_away(played: Played) -> None:
    """Name and type, size where the row has it; no bytes, no base64, no text of the file."""
    sent = {trace.root.input: trace for trace in played.of("10-files").values() if trace.name == TURN}
    files = {
        question: json.loads(str(trace.metadata["files"]))
        for question, trace in sent.items()
        if "files" in trace.metadata
    }

    assert files.keys() == {"What is in this picture?", "Read my notes"}
    (image,), (notes,) = files["What is in this picture?"], files["Read my notes"]
    assert (image["name"], image["type"]) == ("red.png", "image/png")
    assert (notes["name"], notes["type"], notes["bytes"]) == ("notes.txt", "text/plain", 29)
    everything = repr(list(sent.values()))
    assert "base64" not in everything
    assert "/images/" not in everything
    assert "The secret word is" not in "".join(str(trace.metadata) for trace in sent.values())


def test_feedback_comes_changes_and_goes(played: Played) -> None:
    """Thumbs up, then down with tag and text under the same id, then nothing."""
    (turn,) = played.expected("11-feedback")
    score_id = f"feedback-{turn.trace_id}"
    posted = [score for score in played.fake.scores.posted if score["id"] == score_id]

    assert [score["value"] for score in posted] == [True, False]
    assert [score["comment"] for score in posted] == ["accurate_reliable", "inaccurate — It is wrong"]
    assert {(score["name"], score["dataType"], score["traceId"]) for score in posted} == {
        ("user-feedback", "BOOLEAN", turn.trace_id)
    }
    assert len({score["timestamp"] for score in posted}) == 1
    assert played.fake.scores.deleted_ids == [score_id]
    assert played.fake.score(score_id) is None


def test_temporary_chats_leave_no_trace_by_default(played: Played) -> None:
    """Nothing of the two turns, and each is counted."""
    assert played.of("12-temporary") == {}
    assert played.outcomes("temporary") >= 2
    everything = json.dumps([dict(span.attributes) for span in played.fake.spans], default=list)
    assert "Secret temporary question" not in everything


def test_deleted_messages_keep_their_traces_by_default(played: Played) -> None:
    """Message, conversation and account were deleted: what was sent stays, and each deletion is counted."""
    turns = {turn.trace_id for turn in played.expected("13-deletes")}

    assert len(turns) == 4
    assert turns <= played.of("13-deletes").keys()
    assert played.outcomes("deletion_kept") >= 8


def test_copies_are_no_turns_by_default(played: Played) -> None:
    """Fork, duplicate and two imports: only the two turns that a model answered are shown."""
    copies = played.traffic["14-fork-duplicate-import"].copies()

    assert len(copies) == 6
    assert copies.keys().isdisjoint(played.of("14-fork-duplicate-import"))
    assert played.outcomes("copied") >= len(copies)


def test_each_of_two_models_in_parallel_has_its_own_text(played: Played) -> None:
    """One generation a model, with the model's own answer and its own tokens."""
    truth = {turn.response_message_id: turn for turn in played.traffic["18-parallel-added-convo"].truth.turns}
    for turn in played.expected("18-parallel-added-convo"):
        calls = played.of("18-parallel-added-convo")[turn.trace_id].of("generation")
        told = {}
        for request in truth[turn.response_id].requests:
            usage = request.usage or {}
            told[request.model] = (
                usage.get("prompt_tokens", usage.get("input_tokens")),
                usage.get("completion_tokens", usage.get("output_tokens")),
            )

        assert len(calls) == 2
        assert {call.model: (call.usage["input"], call.usage["output"]) for call in calls} == told
        for call in calls:
            assert call.output == {
                "role": "assistant",
                "content": f"Echo from {call.model}: {turn.question}",
            }


@pytest.mark.parametrize("name", UNANSWERED)
def test_a_question_that_was_never_answered_is_a_trace_of_its_own(played: Played, name: str) -> None:
    """A killed LibreChat and an empty balance leave the question alone: an error without tokens and without cost."""
    ((trace_id, turn),) = played.traffic[name].unanswered().items()
    sent = played.of(name)[trace_id]

    assert (sent.root.input, sent.root.output) == (turn.text, None)
    assert (sent.session, sent.user) == (turn.conversation_id, turn.user_id)
    assert (sent.metadata["outcome"], sent.root.level) == ("unanswered", "ERROR")
    assert (sent.of("generation"), sent.tokens, sent.dollars) == ([], {}, 0)
    assert abs(sent.root.start - turn.posted_at) < timedelta(seconds=2)


def test_a_pause_for_approval_is_inside_one_trace(played: Played) -> None:
    """From the question to the end after the approval or the rejection, with what the tool gave."""
    approved, rejected = played.expected("23-hitl-tool-approval")
    arrived = played.of("23-hitl-tool-approval")
    for turn in (approved, rejected):
        sent = arrived[turn.trace_id]
        (tool,) = sent.of("tool")

        assert sent.root.end - sent.root.start > timedelta(seconds=3)
        assert len(sent.of("generation")) == 2
        assert (tool.name, tool.output) == (turn.tools[0].name, turn.tools[0].output)
        assert sent.metadata["outcome"] == "complete"
    assert "v-approve" in str(arrived[approved.trace_id].of("tool")[0].output)
    assert arrived[rejected.trace_id].of("tool")[0].output


def test_an_answer_that_was_edited_and_sent_on_has_no_invented_duration(played: Played) -> None:
    """Nothing tells when it was asked for, so it starts where it ends."""
    *_, resent = played.expected("05-edit-in-place")
    root = played.of("05-edit-in-place")[resent.trace_id].root

    assert root.start == root.end


def test_a_later_title_changes_nothing_that_was_sent(played: Played) -> None:
    """Renamed and archived after the last turn: each trace shows the title of its time."""
    titles = [
        played.of("05-edit-in-place")[turn.trace_id].metadata.get("conversation_title")
        for turn in played.expected("05-edit-in-place")
    ]
    last = played.traffic["05-edit-in-place"].last_documents("conversations")

    assert "Fake Generated Title" in titles
    assert {row["title"] for row in last.values()} == {"Renamed by user"}
    assert "Renamed by user" not in titles


def test_reasoning_stands_apart_from_the_answer(played: Played) -> None:
    """In the metadata of its generation, never in the answer."""
    reasoned = [
        call
        for trace in played.of("16-reasoning").values()
        for call in trace.of("generation")
        if "reasoning" in call.metadata
    ]

    assert reasoned
    for call in reasoned:
        assert str(call.metadata["reasoning"]) not in str(call.output)


def edited_rows(played: Played, name: str) -> list[Document]:
    """The rows after an update of their text."""
    return [
        event.full_document
        for event in played.traffic[name].recording.events
        if event.collection == "messages"
        and event.update is not None
        and event.full_document is not None
        and not {"text", "content"}.isdisjoint(event.update.updated_fields)
    ]
