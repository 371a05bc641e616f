"""What no recording has: native tracing beside us, older releases, the remote API, two people in one place.

The documents are recorded ones, shaped as the data contract says that those cases are stored.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from tailer.demo.stage.player import play
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import langfuse_settings, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import TITLE, TURN, Traffic, place, sent_spans, trace_id_of
from tests.e2e.playing import QUICK, place_all, play_live, turns_done
from tests.e2e.shaping import (
    Change,
    replace_text,
    reshape,
    trace_natively,
    unname_transaction,
    without,
    write_parts,
    write_text,
)
from tests.fakes.langfuse import FakeLangfuse

API_USAGE = "librechat-api-usage"
PLAIN = "02-multi-turn"


async def test_a_turn_that_librechat_traced_itself_is_left_to_it(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """Neither the turn nor its title is sent: the cost is in that project already."""
    traffic = {PLAIN: reshape(place_all([PLAIN])[PLAIN], "messages", trace_natively)}
    played = await play_live(replica_set, tmp_path, traffic, {})

    assert played.fake.trace_ids() == []
    assert played.outcomes("traced_natively") >= 3


async def test_a_duplicate_of_native_tracing_never_shares_a_trace_with_it(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """Turn and title both have ids of their own: under LibreChat's the tokens would be added up."""
    traffic = {PLAIN: reshape(place_all([PLAIN])[PLAIN], "messages", trace_natively)}
    played = await play_live(replica_set, tmp_path, traffic, {"TAILER_NATIVE": "duplicate"})
    turns = played.expected(PLAIN)
    native = {turn.trace_id for turn in turns} | traffic[PLAIN].titles().keys()
    arrived = played.of(PLAIN)

    assert {trace.root.input for trace in arrived.values() if trace.name == TURN} == {
        turn.question for turn in turns
    }
    assert [trace.tokens for trace in arrived.values() if trace.name == TURN] == [
        turn.tokens for turn in turns
    ]
    assert native.isdisjoint(arrived)


@pytest.mark.parametrize("write", [write_text, write_parts])
async def test_rows_of_an_older_release_give_the_same_turns(
    write: Change, replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """Answers in `text` or in parts, transactions without `messageId`: numbers by person, conversation and time."""
    played_traffic = place_all([PLAIN])[PLAIN]
    old = reshape(reshape(played_traffic, "messages", write), "transactions", unname_transaction)
    played = await play_live(replica_set, tmp_path, {PLAIN: old}, {})
    arrived = played.of(PLAIN)

    turns = played_traffic.finished_turns()
    assert {trace.trace_id for trace in arrived.values() if trace.name == TURN} == {
        turn.trace_id for turn in turns
    }
    for turn in turns:
        trace = arrived[turn.trace_id]
        assert (trace.root.input, trace.root.output) == (turn.question, turn.answer)
        assert (trace.metadata["outcome"], trace.metadata["parent_message_id"]) == (
            "complete",
            turn.parent_id,
        )
        assert trace.tokens == turn.tokens
        # Before 0.7.9 LibreChat counted plain prompts itself.
        known = {"billed"} if write is write_parts else {"billed", "estimated"}
        assert {call.metadata["usage_source"] for call in trace.of("generation")} <= known
        assert trace.of("generation")[0].output == {"role": "assistant", "content": turn.answer}
    charged = played_traffic.dollars()
    assert sum(trace.dollars for trace in arrived.values()) == pytest.approx(sum(charged.values()))
    assert {trace.trace_id for trace in arrived.values() if trace.name == TITLE} == set(
        played_traffic.titles()
    )


async def test_an_answer_that_an_older_release_stopped_is_aborted(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """`finish_reason: incomplete` and no `unfinished`; no part and no flag of later releases."""

    def stop(row: Document) -> Document:
        return (
            {**write_text(row), "finish_reason": "incomplete"} if row.get("isCreatedByUser") is False else row
        )

    traffic = {PLAIN: reshape(place_all([PLAIN])[PLAIN], "messages", stop)}
    played = await play_live(replica_set, tmp_path, traffic, {})
    traces = [trace for trace in played.of(PLAIN).values() if trace.name == TURN]

    assert [trace.metadata["outcome"] for trace in traces] == ["aborted"] * 3
    assert {call.metadata["usage_source"] for trace in traces for call in trace.of("generation")} == {
        "estimated"
    }


def two_people(*, is_old: bool) -> tuple[Traffic, Traffic]:
    """The same words at the same moment under the same conversation id; the second spends ten times as much."""
    now = datetime.now(UTC)
    first, second = (place("02-multi-turn", now, salt=salt) for salt in ("first", "second"))
    (shared,) = first.conversations
    (other,) = second.conversations
    moved = replace_text(second.recording, other, shared)
    answers = replace_text(moved, "Echo from", "Other echo from")
    second = replace(
        second,
        recording=answers,
        truth=replace(
            second.truth,
            turns=tuple(replace(turn, conversation_id=shared) for turn in second.truth.turns),
        ),
    )
    second = reshape(reshape(second, "transactions", ten_times), "messages", ten_times_in_metadata)
    if not is_old:
        return first, second
    old = [
        reshape(reshape(each, "messages", write_text), "transactions", unname_transaction)
        for each in (first, second)
    ]
    return old[0], old[1]


def ten_times(row: Document) -> Document:
    return {
        key: value * 10 if key in {"rawAmount", "inputTokens", "readTokens", "tokenValue"} else value
        for key, value in row.items()
    }


def ten_times_in_metadata(row: Document) -> Document:
    if "usage" not in (row.get("metadata") or {}):
        return row
    usage = {key: value * 10 for key, value in row["metadata"]["usage"].items()}
    return {**row, "metadata": {**row["metadata"], "usage": usage}}


@pytest.mark.parametrize("is_old", [False, True])
async def test_two_people_with_the_same_words_and_the_same_conversation_id_stay_apart(
    *, is_old: bool, replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """Ids are unique only together with the user: answers, history, tokens and names are each person's own."""
    first, second = two_people(is_old=is_old)
    played = await play_live(replica_set, tmp_path, {"first": first, "second": second}, {})
    arrived = played.of("first")

    for traffic, factor, echo in ((first, 1, "Echo from"), (second, 10, "Other echo from")):
        turns = {trace_id_of(str(turn.response_message_id)): turn for turn in traffic.truth.turns}
        for trace_id, turn in turns.items():
            trace = arrived[trace_id]
            assert trace.user == turn.user_id
            assert str(trace.root.output).startswith(echo)
            expected = {
                "input": turn.usage.input_tokens - turn.usage.cache_read_tokens,
                "input_cached_tokens": turn.usage.cache_read_tokens,
                "output": turn.usage.output_tokens,
            }
            assert trace.tokens == {key: value * factor for key, value in expected.items() if value}
            history = trace.of("generation")[0].input
            said = [message["content"] for message in history if message["role"] == "assistant"]
            assert all(text.startswith(echo) for text in said)
            assert len(said) == [*turns].index(trace_id)
    assert len([trace for trace in arrived.values() if trace.name == TURN]) == 6


async def test_the_same_question_in_two_tabs_of_one_conversation_gives_two_turns(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """The same person, text, parent and moment: each tab keeps its own answer and tokens."""
    now = datetime.now(UTC)
    first, second = (place("01-single-turn", now, salt=salt) for salt in ("left", "right"))
    (shared,), (other,) = first.conversations, second.conversations
    owner, twin = first.truth.turns[0].user_id, second.truth.turns[0].user_id

    def move(row: Document) -> Document:
        user = row.get("user")
        if user is not None:
            row = {**row, "user": ObjectId(owner) if isinstance(user, ObjectId) else owner}
        return row

    recording = replace_text(replace_text(second.recording, other, shared), "Echo from", "Other echo from")
    second = without(replace(second, recording=recording), "conversations", "users", "balances")
    second = reshape(reshape(second, "messages", move), "transactions", move)
    second = reshape(reshape(second, "transactions", ten_times), "messages", ten_times_in_metadata)
    played = await play_live(replica_set, tmp_path, {"left": first, "right": second}, {})
    turns = {trace_id: trace for trace_id, trace in played.of("left").items() if trace.name == TURN}

    assert twin not in {trace.user for trace in turns.values()}
    for traffic, factor, echo in ((first, 1, "Echo from"), (second, 10, "Other echo from")):
        (turn,) = traffic.truth.turns
        trace = turns.pop(trace_id_of(str(turn.response_message_id)))
        assert trace.user == owner
        assert str(trace.root.output).startswith(echo)
        assert trace.tokens == {
            "input": turn.usage.input_tokens * factor,
            "output": turn.usage.output_tokens * factor,
        }
    assert turns == {}


def api_call(reference: str, user: ObjectId, *, model: str = "gpt-4o") -> list[dict[str, Any]]:
    """What one call of the remote API leaves: a prompt and a completion, and no message."""
    common = {
        "user": user,
        "conversationId": f"conversation-of-{reference}",
        "messageId": reference,
        "model": model,
        "context": "message",
        "createdAt": datetime.now(UTC),
    }
    prompt = {"tokenType": "prompt", "rawAmount": -120, "rate": 2.5, "tokenValue": -300.0}
    completion = {"tokenType": "completion", "rawAmount": -30, "rate": 10.0, "tokenValue": -300.0}
    return [{"_id": ObjectId(), **common, **entry} for entry in (prompt, completion)]


async def test_calls_of_the_remote_api_become_usage_traces_on_request(
    databases: Databases, tmp_path: Path
) -> None:
    """One each, with tokens and cost; chats spend in their own traces only; by default nothing is sent."""
    traffic = place("01-single-turn", datetime.now(UTC))
    user = ObjectId()
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **QUICK,
            **langfuse_settings(fake.url),
            "TAILER_STREAM_TRANSACTIONS": "true",
        }
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            for reference in ("chatcmpl-first", "chatcmpl-second"):
                await databases.source["transactions"].insert_many(api_call(reference, user))
            await databases.wait_until_done(daemon.must_run)
            await fake.wait_until(lambda: len(fake.trace_ids()) >= 4, timeout_seconds=30)
            metrics = await daemon.wait_for_metrics(lambda found: turns_done(found, "api_usage") >= 2)
            daemon.terminate()
            assert await daemon.exit_code() == 0

    traces = [sent_spans(fake.trace(trace_id)) for trace_id in fake.trace_ids()]
    usage = [trace for trace in traces if trace.name == API_USAGE]
    assert {trace.session for trace in usage} == {
        "conversation-of-chatcmpl-first",
        "conversation-of-chatcmpl-second",
    }
    for trace in usage:
        assert (trace.user, trace.tokens) == (str(user), {"input": 120, "output": 30})
        assert trace.dollars == pytest.approx(0.0006)
        assert (trace.root.model, trace.root.metadata["usage_source"]) == ("gpt-4o", "billed")
    assert sum(trace.dollars for trace in traces if trace.name != API_USAGE) == pytest.approx(
        sum(traffic.dollars().values())
    )
    assert turns_done(metrics, "api_usage") == 2
    assert (fake.duplicates(), fake.violations) == ([], [])
    assert len(traces) == 4
