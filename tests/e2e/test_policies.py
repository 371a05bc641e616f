"""What the operator decided, end to end: who is named, what is sent, what of it is shown."""

import asyncio
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest

from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.expectations import TITLE, TURN, Sent, Traffic
from tests.e2e.playing import Played, place_all, play_live, turns_done
from tests.e2e.shaping import reshape

SECRET = "a-secret-of-the-operator-0123456789"
FACTS = {"TAILER_TAG_FACTS": "endpoint,model,agent,role"}
PEOPLE = ("01-single-turn", "09-agent-tools")
FORK = "14-fork-duplicate-import"
AT_ONCE = 4
RUNS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "id": ({**FACTS, "TAILER_USER_ID": "id"}, PEOPLE),
    "hash": ({**FACTS, "TAILER_USER_ID": "hash", "TAILER_USER_ID_SECRET": SECRET}, PEOPLE),
    "email": ({**FACTS, "TAILER_USER_ID": "email"}, PEOPLE),
    "username": ({**FACTS, "TAILER_USER_ID": "username"}, PEOPLE),
    "deny": (
        {"TAILER_DENY": "user={user},agent={agent},endpoint=anthropic,model=gpt-4o-m*,model=o3-*"},
        ("01-single-turn", "02-multi-turn", "03-regenerate", "09-agent-tools", "16-reasoning"),
    ),
    "allow": (
        {"TAILER_ALLOW": "endpoint=openAI,endpoint=Fake*,model=gpt-4o,model=fake-*"},
        ("03-regenerate", "09-agent-tools", "16-reasoning"),
    ),
    "rules": (
        {
            "TAILER_CONTENT_RULES": "agent={agent}:masked,endpoint=anthropic:none,user=*:full,role=USER:none",
            "TAILER_MASK_FIELDS": "fact",
        },
        ("01-single-turn", "02-multi-turn", "09-agent-tools", "16-reasoning"),
    ),
    "role": ({"TAILER_CONTENT_RULES": "role=USER:none"}, ("02-multi-turn",)),
    "masks": (
        {
            "TAILER_CONTENT": "masked",
            "TAILER_MASK_PATTERNS": "(?:wha|shar|squi)[a-z]+",
            "TAILER_MASK_FIELDS": "fact",
        },
        ("02-multi-turn", "09-agent-tools"),
    ),
    "sample": ({"TAILER_LANGFUSE_SAMPLE_RATE": "0"}, ("02-multi-turn",)),
    "full": ({"TAILER_TEMPORARY": "full", "TAILER_COPIES": "export"}, ("12-temporary", FORK)),
    "numbers": ({"TAILER_TEMPORARY": "metadata"}, ("12-temporary",)),
    "deletions": (
        {"TAILER_TEMPORARY": "full", "TAILER_DELETIONS": "delete"},
        ("12-temporary", "13-deletes"),
    ),
}
"""Settings and recordings; `{user}` is whoever asked in 02, `{agent}` the agent of 09."""


@pytest.fixture(scope="module")
def runs(replica_set: ReplicaSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """All of them, a daemon each, some at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def run(name: str) -> Played:
        settings, names = RUNS[name]
        async with slots:
            traffic = place_all(names)
            if name == "deletions":
                traffic["12-temporary"] = expire_soon(traffic["12-temporary"])
            facts = {
                fact: getattr(traffic[recording].truth.turns[0], key)
                for fact, recording, key in (
                    ("user", "02-multi-turn", "user_id"),
                    ("agent", "09-agent-tools", "agent_id"),
                )
                if recording in traffic
            }
            filled = {key: value.format_map(facts) for key, value in settings.items()}
            directory = tmp_path_factory.mktemp(name)
            return await play_live(
                replica_set, directory, traffic, filled, in_step=("12-temporary", "13-deletes")
            )

    async def run_all() -> dict[str, Played]:
        return dict(zip(RUNS, await asyncio.gather(*map(run, RUNS)), strict=True))

    return asyncio.run(run_all())


def expire_soon(traffic: Traffic) -> Traffic:
    """The recorder shortened the lives of its temporary rows; here they are short from the beginning."""
    at = traffic.recording.started_at + timedelta(seconds=1.5)

    def change(row: Document) -> Document:
        return {**row, "expiredAt": at} if row.get("expiredAt") is not None else row

    return reshape(traffic, "messages", change)


def said(played: Played) -> str:
    """Everything that left the daemon, as one text."""
    spans = [[span.name, span.trace_id, dict(span.attributes)] for span in played.fake.spans]
    return json.dumps([spans, played.fake.scores.posted], default=list)


def turns_of(played: Played, name: str) -> list[Sent]:
    """The traces of a recording's turns."""
    return [trace for trace in played.of(name).values() if trace.name == TURN]


def tools_of(played: Played) -> dict[str, Any]:
    """The arguments of the agent's tools, by the name without the server's."""
    return {
        tool.name.partition("_mcp_")[0]: tool.input
        for trace in turns_of(played, "09-agent-tools")
        for tool in trace.of("tool")
    }


@pytest.mark.parametrize("choice", ["id", "hash", "email", "username"])
def test_a_user_is_named_as_the_operator_wants(choice: str, runs: dict[str, Played]) -> None:
    """Turns and titles alike; a hash gives the id away nowhere."""
    played = runs[choice]

    for name in played.traffic:
        turn = played.traffic[name].truth.turns[0]
        digest = hmac.new(SECRET.encode(), turn.user_id.encode(), hashlib.sha256).hexdigest()[:32]
        names = {
            "id": turn.user_id,
            "hash": digest,
            "email": f"{turn.username}@example.com",
            "username": turn.username,
        }
        assert {trace.name for trace in played.of(name).values()} == {TURN, TITLE}
        assert {trace.user for trace in played.of(name).values()} == {names[choice]}
        if choice == "hash":
            assert turn.user_id not in said(played)
            assert SECRET not in played.output + said(played)
    for turn in played.traffic["09-agent-tools"].truth.turns:
        (trace,) = [each for each in turns_of(played, "09-agent-tools") if each.root.input == turn.text]
        tags = {"librechat", f"endpoint:{turn.endpoint}", "role:USER", "model:gpt-4o"}
        assert set(trace.tags) == tags | ({f"agent:{turn.agent_id}"} if turn.agent_id else set())


def test_lists_deny_turns_with_their_titles_and_count_them(runs: dict[str, Played]) -> None:
    """By user, agent, endpoint and model; the rest arrives."""
    played = runs["deny"]

    denied = {"user": 3, "agent": 4, "endpoint": 1, "model": 2}
    assert {fact: turns_done(played.metrics, f"denied_{fact}") for fact in denied} == denied
    assert played.of("02-multi-turn") == {}
    for name, kept in {
        "01-single-turn": ["gpt-4o"],
        "03-regenerate": ["gpt-4o"] * 3,
        "09-agent-tools": ["gpt-4o"],
        "16-reasoning": ["fake-reasoner-r1"],
    }.items():
        calls = [trace.of("generation")[0] for trace in turns_of(played, name)]
        models = [call.model or call.metadata["model"] for call in calls]
        assert models == kept
    plain = [turn for turn in played.traffic["09-agent-tools"].truth.turns if turn.agent_id is None]
    assert {trace.root.input for trace in turns_of(played, "09-agent-tools")} == {turn.text for turn in plain}


def test_allowing_some_denies_the_rest(runs: dict[str, Played]) -> None:
    """Each fact that is named must fit one of its patterns."""
    played = runs["allow"]

    assert turns_done(played.metrics, "denied_endpoint") == 5
    assert turns_done(played.metrics, "denied_model") == 2
    assert len(turns_of(played, "03-regenerate")) == 3
    assert len(turns_of(played, "09-agent-tools")) == 1
    assert [trace.metadata["endpoint"] for trace in turns_of(played, "16-reasoning")] == ["FakeCo"]


def test_content_rules_decide_turn_by_turn(runs: dict[str, Played]) -> None:
    """By endpoint, agent and user role; the first that fits counts; numbers are always sent."""
    played = runs["rules"]

    for trace in turns_of(played, "16-reasoning"):
        is_hidden = trace.metadata["endpoint"] == "anthropic"
        assert (trace.root.input is None, trace.root.output is None) == (is_hidden, is_hidden)
        assert all((call.output is None) is is_hidden for call in trace.of("generation"))
    tools = tools_of(played)
    assert tools["remember_fact"].keys() == {"fact"}
    assert tools["remember_fact"]["fact"] != "sky is blue"
    assert tools["slow_echo"] == {"text": "hi", "delay_ms": 1500}
    tokens = {turn.trace_id: turn.tokens for name in played.traffic for turn in played.expected(name)}
    for name in played.traffic:
        for trace in turns_of(played, name):
            assert trace.tokens == tokens[trace.trace_id] or tokens[trace.trace_id] is None
    for name in ("01-single-turn", "02-multi-turn"):
        for turn in played.expected(name):
            root = played.of(name)[turn.trace_id].root
            assert (root.input, root.output) == (turn.question, turn.answer)


def test_a_rule_for_a_role_hides_what_people_of_that_role_wrote(runs: dict[str, Played]) -> None:
    """The role is read from `users`."""
    played = runs["role"]

    assert len(turns_of(played, "02-multi-turn")) == 3
    for turn in played.expected("02-multi-turn"):
        assert turn.question not in said(played)
        assert str(turn.answer) not in said(played)
        assert played.of("02-multi-turn")[turn.trace_id].tokens == turn.tokens
    assert "Fake Generated Title" not in said(played)


def test_the_operators_own_pattern_and_field_are_masked_with_equal_placeholders(
    runs: dict[str, Played],
) -> None:
    """In questions, answers and history one value has one placeholder; a masked field loses its whole value."""
    played = runs["masks"]

    for animal in ("whales", "sharks", "squid"):
        assert animal not in said(played)
    stood_for = set()
    for turn in played.expected("02-multi-turn"):
        trace = played.of("02-multi-turn")[turn.trace_id]
        words = zip(turn.question.split(), str(trace.root.input).split(), strict=True)
        changed = [after for before, after in words if before != after]
        assert len(changed) == 1
        assert "pattern-1" in changed[0]
        assert changed[0] in str(trace.root.output)
        stood_for.add(changed[0])
    assert len(stood_for) == 3
    last = played.of("02-multi-turn")[played.expected("02-multi-turn")[-1].trace_id]
    assert all(word in str(last.of("generation")[0].input) for word in stood_for)
    tools = tools_of(played)
    assert tools["remember_fact"]["fact"] != "sky is blue"
    assert tools["slow_echo"] == {"text": "hi", "delay_ms": 1500}


def test_conversations_outside_the_sample_are_counted(runs: dict[str, Played]) -> None:
    """A sample of nothing sends nothing, and says how much that was."""
    played = runs["sample"]

    assert played.fake.trace_ids() == []
    assert turns_done(played.metrics, "not_sampled") >= 3


def test_temporary_chats_are_shown_in_full_on_request(runs: dict[str, Played]) -> None:
    """Both turns with their texts and tokens, tagged; they have no title."""
    played = runs["full"]
    expected = played.traffic["12-temporary"].finished_turns()
    arrived = played.of("12-temporary")

    assert arrived.keys() == {turn.trace_id for turn in expected}
    for turn in expected:
        trace = arrived[turn.trace_id]
        assert (trace.root.input, trace.root.output) == (turn.question, turn.answer)
        assert (trace.tokens, "temporary" in trace.tags) == (turn.tokens, True)


def test_temporary_chats_are_shown_without_any_text_on_request(runs: dict[str, Played]) -> None:
    """Tokens, cost and times; nothing that anybody wrote, also not as history."""
    played = runs["numbers"]
    expected = played.traffic["12-temporary"].finished_turns()
    arrived = played.of("12-temporary")

    assert arrived.keys() == {turn.trace_id for turn in expected}
    for turn in expected:
        trace = arrived[turn.trace_id]
        assert trace.tokens == turn.tokens
        assert all((item.input, item.output) == (None, None) for item in trace.observations)
        assert turn.question not in said(played)
        assert str(turn.answer) not in said(played)


def test_copies_are_shown_without_cost_on_request(runs: dict[str, Played]) -> None:
    """Fork, duplicate and both imports under the tag `copied`; the tokens are the originals' alone."""
    played = runs["full"]
    name = "14-fork-duplicate-import"
    traffic, arrived = played.traffic[name], played.of(name)
    copies = traffic.copies()
    originals = {turn.trace_id: turn for turn in traffic.finished_turns()}

    assert arrived.keys() == copies.keys() | originals.keys() | traffic.titles().keys()
    for trace_id, row in copies.items():
        trace = arrived[trace_id]
        text = row.get("text") or row["content"][0]["text"]
        assert "copied" in trace.tags
        assert trace.metadata["outcome"] == "copied"
        assert (trace.root.output, trace.tokens, trace.dollars) == (text, {}, 0)
    for trace_id, turn in originals.items():
        assert "copied" not in arrived[trace_id].tags
        assert arrived[trace_id].tokens == turn.tokens


def test_what_is_deleted_goes_from_langfuse_too_on_request(runs: dict[str, Played]) -> None:
    """Of a message, a conversation, all conversations, an account, and by TTL: turns and titles alike."""
    played = runs["deletions"]
    expected = {turn.trace_id for name in played.traffic for turn in played.traffic[name].finished_turns()}

    assert played.fake.trace_ids() == []
    assert expected <= set(played.fake.state.spans.deleted_trace_ids)
    assert played.outcomes("deletion_followed") == 4
    assert played.outcomes("expiry_followed") == 2
