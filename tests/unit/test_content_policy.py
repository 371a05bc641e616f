"""What leaves the house: under `none` no word of a turn, under `masked` nothing that the mask is not sure of."""

import re
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.json_text import encode_json
from tailer.core.librechat.messages import Message
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import ContentChoice, ContentRule, Fact, Policies, Rule, TemporaryPolicy
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.content_policy import drop_content, mask_content, show_content
from tailer.core.trace.export import Exported
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.trace.otlp import SpanContext, encode_trace
from tailer.core.turn.turns import TurnRecord
from tests.unit.documents import (
    MISSING,
    Document,
    agent,
    agent_row,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    prompt_row,
    response_row,
    tool_part,
    trace_of,
    traces_of,
    turn_record,
    usage_metadata,
    user_row,
)

WORD = "xylophonquartz"
KEY = b"a deployment's own key"
NONE = Policies(content=ContentChoice.NONE)
MASKED = Policies(content=ContentChoice.MASKED)
CONTEXT = SpanContext("test")


def encoded(record: TurnRecord, **fields: Any) -> bytes:
    traces = traces_of(record, deadline_passed=True, tag_facts=(Fact.TAG,), **fields)
    return b"".join(encode_trace(trace, CONTEXT) for trace in traces)


def masker(*patterns: str) -> Masker:
    return Masker(compile_rules(list(patterns), []), KEY)


def with_word(place: str, word: str) -> TurnRecord:
    """A turn with tools, title, history and settings that holds the word in one place where people or models write."""
    filler = dict.fromkeys(PLACES, "harmless") | {place: word}
    parts: list[Document | None] = [
        {"type": "summary", "content": [{"type": "text", "text": filler["summary"]}]},
        {"type": "think", "think": filler["reasoning"]},
        {"type": "text", "text": filler["answer"]},
        tool_part(args={"query": filler["argument"]}, output=filler["output"]),
        tool_part(id="call_2", args=f'{{"query": "{filler["partial argument"]}', output=MISSING),
        {"type": "steer", "steer": filler["steering"]},
        {"type": "text", "text": {"value": filler["assistant's answer"]}},
    ]
    if place == "error":
        parts.append({"type": "error", "error": filler["error"]})
    unparted = place == "text of an old release"
    response = response_row(
        content=MISSING if unparted else parts,
        text=filler["text of an old release"] if unparted else "",
        metadata=usage_metadata(108, 13),
        attachments=[
            {"filename": filler["attachment"], "type": "text/plain"},
            {"type": "file_search", "file_search": {"sources": [{"fileName": filler["source"]}]}},
        ],
        sender=filler["sender"],
    )
    history: list[Message] = [
        message(user_row(messageId="q0", text=filler["earlier question"])),
        message(response_row(messageId="r0", content=[{"type": "text", "text": filler["earlier answer"]}, tool_part(output=filler["earlier output"])])),
    ]  # fmt: skip
    files = [{"filename": filler["file name"], "bytes": 5}]
    own = agent(
        agent_row(
            name=filler["agent's name"],
            instructions=filler["instructions"],
            model_parameters={"stop": [filler["agent's parameter"]]},
        )
    )
    other = agent(agent_row(id="agent_other", name=filler["sub-agent's name"]))
    if place == "sub-agent's name":
        parts += [
            tool_part("lc_transfer_to_agent_other", id="call_3"),
            tool_part("subagent", id="call_4", args='{"subagent_type":"agent_other"}'),
            {"type": "text", "text": "from the other", "agentId": "agent_other"},
        ]
        response = {**response, "content": parts}
    return turn_record(
        response,
        user_row(
            text=filler["question"],
            files=files,
            quotes=[filler["quote"]],
            manualSkills=[filler["skill"]],
        ),
        prompt_row(108),
        completion_row(13),
        prompt_row(142, context="title"),
        completion_row(5, context="title"),
        history=tuple(history),
        conversation=conversation(
            conversation_row(
                title=filler["title"],
                tags=[filler["tag"]],
                promptPrefix=filler["system prompt"],
                stop=[filler["stop sequence"]],
                spec=filler["model spec"],
            )
        ),
        agent=own if place in ("instructions", "agent's parameter", "agent's name") else None,
        agents={} if place != "sub-agent's name" else {other.agent_id: other},
    )  # fmt: skip


PLACES = (
    "question", "answer", "assistant's answer", "text of an old release", "reasoning", "argument",
    "partial argument", "output", "steering", "summary", "error", "attachment", "file name", "earlier question",
    "earlier answer", "earlier output", "title", "tag", "system prompt", "instructions", "stop sequence",
    "agent's parameter", "agent's name", "sender", "model spec", "skill", "quote", "source", "sub-agent's name",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_planted_word_is_in_the_full_trace(place: str) -> None:
    """Else the next tests would show nothing."""
    assert WORD.encode() in encoded(with_word(place, WORD))


@pytest.mark.parametrize("place", PLACES)
def test_without_content_a_word_of_the_turn_is_nowhere_in_the_bytes(place: str) -> None:
    assert WORD.encode() not in encoded(with_word(place, WORD), policies=NONE)


@given(
    st.sampled_from(PLACES),
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=12, max_size=20),
    st.text(max_size=5),
)
def test_without_content_no_text_of_any_place_leaks(place: str, word: str, around: str) -> None:
    """Whatever stands around it: escapes, quotes, other scripts."""
    text = (
        f"{around}{word}{around}".replace('"', "'")
        if place == "partial argument"
        else f"{around}{word}{around}"
    )

    assert word.encode() not in encoded(with_word(place, text), policies=NONE)


@pytest.mark.parametrize("place", PLACES)
def test_masked_content_holds_no_planted_address(place: str) -> None:
    """Every place goes through the mask."""
    found = encoded(with_word(place, "anna.smith@example.com"), policies=MASKED, mask=masker)

    assert b"anna.smith" not in found
    assert b"[email:" in found


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_masked_is_withheld(place: str) -> None:
    """An expression of the operator matches so much that it may have been cut short: the mask refuses, and fails
    closed."""
    text = "x" * 1_500
    found = encoded(with_word(place, text), policies=MASKED, mask=lambda: masker("x+"))

    assert b"xxxxxxxx" not in found


@pytest.mark.parametrize(
    ("policies", "tags"),
    [
        (Policies(), ("team-a", "endpoint:openAI", "tag:divorce", "tag:anna.smith@example.com")),
        (MASKED, ("team-a", "endpoint:openAI", "tag:divorce", "tag:[email:")),
        (NONE, ("team-a", "endpoint:openAI")),
    ],
)
def test_a_tag_that_the_user_wrote_is_shown_as_far_as_the_turn_is(
    policies: Policies, tags: tuple[str, ...]
) -> None:
    """The tags of the operator and of other facts stay."""
    chat = conversation(conversation_row(tags=["divorce", "anna.smith@example.com"]))
    record = turn_record(response_row(), user_row(), prompt_row(1, context="title"), conversation=chat)
    made = export(
        record,
        policies=policies,
        mask=masker,
        tags=("team-a",),
        tag_facts=(Fact.ENDPOINT, Fact.TAG),
    )
    assert isinstance(made, Exported)

    for shown in (*(set(trace.tags) - {"title"} for trace in made.traces), set(made.sent.tags)):
        assert {tag.split("[email:")[0] for tag in shown} == {tag.split("[email:")[0] for tag in tags}
        assert any("[email:" in tag for tag in shown) == (policies is MASKED)


def test_a_long_tag_is_masked_before_it_is_cut() -> None:
    """Half an address would not look like one."""
    chat = conversation(conversation_row(tags=[f"{'x' * 191} anna.smith@example.com"]))
    record = turn_record(response_row(), user_row(), conversation=chat)

    (full,) = trace_of(record, tag_facts=(Fact.TAG,)).tags
    (masked,) = trace_of(record, policies=MASKED, mask=masker, tag_facts=(Fact.TAG,)).tags

    assert (len(full), full[-5:]) == (200, " anna")
    assert len(masked) <= 200
    assert "anna" not in masked


def agent_ids(content: ContentChoice, *parts: Document) -> list[str]:
    """The agents that the observations of a turn name, with the word as a pattern of the mask."""
    record = turn_record(response_row(content=list(parts)), user_row())
    shown = trace_of(record, policies=Policies(content=content), mask=lambda: masker(WORD))
    return [item.metadata["agent_id"] for item in shown.observations if "agent_id" in item.metadata]


def test_the_label_of_a_preset_is_shown_in_an_agents_id_as_far_as_other_names_are() -> None:
    """LibreChat puts what a person called the preset into the id of each model that answers beside another."""
    parts = [
        {"type": "text", "text": "one", "agentId": f"openAI__gpt-4o___{WORD} of mine", "groupId": 1},
        {"type": "text", "text": "two", "agentId": f"Open Router__a__b___{WORD}____1", "groupId": 1},
        {"type": "text", "text": "three", "agentId": "openAI__gpt-4o____2", "groupId": 1},
    ]

    assert f"openAI__gpt-4o___{WORD} of mine" in agent_ids(ContentChoice.FULL, *parts)
    assert agent_ids(ContentChoice.NONE, *parts) == [
        "openAI__gpt-4o",
        "Open Router__a__b____1",
        "openAI__gpt-4o____2",
    ]
    assert not any(WORD in agent_id for agent_id in agent_ids(ContentChoice.MASKED, *parts))
    assert agent_ids(ContentChoice.MASKED, *parts)[0].endswith(" of mine")


def test_what_a_model_wrote_in_place_of_a_sub_agents_id_is_its_text() -> None:
    invented = tool_part("subagent", args=f'{{"subagent_type":"a {WORD}, please"}}')
    saved = tool_part("subagent", args='{"subagent_type":"agent_iACv6m9mgXqVzt5kkBW0V"}')

    assert agent_ids(ContentChoice.NONE, invented) == []
    assert WORD not in str(agent_ids(ContentChoice.MASKED, invented))
    assert agent_ids(ContentChoice.NONE, saved) == ["agent_iACv6m9mgXqVzt5kkBW0V"]


def test_withheld_content_says_so_and_the_numbers_stay() -> None:
    record = with_word("question", "x" * 1_500)
    turn, _ = traces_of(record, policies=MASKED, mask=lambda: masker("x+"))

    assert turn.root.input == "[content withheld: it could not be masked]"
    assert turn.root.output != turn.root.input
    assert sum((item.usage or {}).get("output", 0) for item in turn.observations) == 13


def test_no_beginning_of_a_value_stands_before_the_cut_of_a_history() -> None:
    """Of the oldest row the beginning is shown, as far as the limit allows."""
    said = "x" * 395 + " anna.smith@example.com " + "y " * 9_000
    record = turn_record(response_row(), user_row(), prompt_row(1), history=(message(user_row(text=said)),))
    turn, *_ = traces_of(record, policies=MASKED, mask=masker, bounds=Bounds(history_bytes=400))
    (first, _) = cast("list[dict[str, str]]", turn.observations[1].input)

    assert re.fullmatch(r"x+ \[email:[0-9a-f]{12}\]… \[cut: \d+ bytes left out\]", first["content"])


def test_a_masked_turn_stays_within_the_bounds_of_its_trace() -> None:
    """The placeholders of short addresses are three times as long, and every place holds some."""
    addresses = [f"{number}a@b.cd\n" * 200 for number in range(12)]
    tools = [
        tool_part(id=f"c{number}", args={"to": text}, output=text) for number, text in enumerate(addresses)
    ]
    record = turn_record(
        response_row(content=[{"type": "text", "text": addresses[0]}, *tools]),
        user_row(text=addresses[1]),
        prompt_row(1),
        completion_row(1),
    )
    bounds = Bounds(field_bytes=3_000, trace_bytes=12_000)
    (turn,) = traces_of(record, policies=MASKED, mask=masker, bounds=bounds)
    values = [value for item in turn.observations for value in (item.input, item.output) if value is not None]
    texts = [value if isinstance(value, str) else encode_json(value) for value in values]

    assert "[email:" in texts[0]
    assert "bytes left out]" in texts[0]
    assert int(turn.metadata["content_cut_bytes"]) > 0
    assert all(len(text) < 3_100 for text in texts[:2])
    assert sum(map(len, texts)) < 12_000 + 100 * 4 * len(tools)
    assert not re.search(r"\[email:[0-9a-f]{0,11}(?![0-9a-f])", " ".join(texts))


def test_a_turn_that_takes_too_much_work_is_withheld_where_it_does() -> None:
    """What came first is masked, and what is short and holds nothing stays."""
    addresses = "".join(f"a{number}@b.cd\n" for number in range(80_000))
    tools = [tool_part(id=f"c{number}", args={}, output=f"{number} {addresses}") for number in range(2)]
    record = turn_record(
        response_row(content=[{"type": "text", "text": "Done."}, *tools]),
        user_row(text="Write to a@b.io"),
        prompt_row(1),
    )
    (turn,) = traces_of(record, policies=MASKED, mask=masker)
    outputs = [str(item.output) for item in turn.observations if item.type is ObservationType.TOOL]

    assert str(turn.root.input).startswith("Write to [email:")
    assert turn.root.output == "Done."
    assert outputs[0].startswith("0 [email:")
    assert outputs[1] == "[content withheld: it could not be masked]"


def test_without_a_masker_nothing_of_a_masked_turn_is_shown() -> None:
    assert WORD.encode() not in encoded(with_word("question", WORD), policies=MASKED, mask=None)


def test_a_fault_of_the_mask_itself_stops_the_trace() -> None:
    """It is never a reason to send the text as it is."""
    record = turn_record(response_row(), user_row())

    def broken_mask() -> Masker:
        raise RuntimeError("no rules")

    with pytest.raises(RuntimeError):
        export(record, policies=MASKED, mask=broken_mask)


def test_without_content_numbers_times_and_shape_stay() -> None:
    record = with_word("answer", WORD)
    shown = traces_of(record)
    dropped = traces_of(record, policies=NONE)

    for before, after in zip(shown, dropped, strict=True):
        assert (after.id, after.user_id, after.session_id, after.name) == (
            before.id, before.user_id, before.session_id, before.name,
        )  # fmt: skip
        for old, new in zip(before.observations, after.observations, strict=True):
            assert (new.id, new.parent_id, new.type, new.level, new.usage, new.cost, new.model) == (
                old.id, old.parent_id, old.type, old.level, old.usage, old.cost, old.model,
            )  # fmt: skip
            assert (new.start_milliseconds, new.end_milliseconds) == (
                old.start_milliseconds,
                old.end_milliseconds,
            )
            assert (new.input, new.output) == (None, None)


def test_without_content_the_sizes_are_told() -> None:
    record = turn_record(response_row(), user_row(text="12345"))
    root = traces_of(record, policies=NONE)[0].root

    assert root.metadata["input_characters"] == "5"
    assert root.metadata["output_characters"] == str(len("Paris."))


def test_without_content_numbers_among_the_parameters_stay() -> None:
    chat = conversation(conversation_row(temperature=0.5, web_search=True, stop=["END"]))
    record = turn_record(response_row(), user_row(), prompt_row(1), conversation=chat)
    generation = traces_of(record, policies=NONE)[0].observations[1]

    assert generation.model_parameters == {"temperature": 0.5, "web_search": True}


def test_full_content_is_the_trace_as_it_is() -> None:
    (trace,) = traces_of(turn_record(response_row(), user_row()))

    assert show_content(trace) is trace


def trace_with(**fields: Any) -> Trace:
    (trace,) = traces_of(turn_record(response_row(), user_row()))
    item = Observation(
        id=trace.root.id, parent_id=None, type=ObservationType.TOOL, name="t", start_milliseconds=1, end_milliseconds=2, **fields
    )  # fmt: skip
    return replace(trace, observations=(item,))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.just(WORD),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just(WORD), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON, st.sampled_from(Level))
def test_without_content_no_shape_of_a_value_lets_a_word_through(
    before: object, after: object, level: Level
) -> None:
    """Keys of objects are words too. Only an error's message is text of the turn."""
    status = WORD if level is Level.ERROR else None
    trace = drop_content(trace_with(input=before, output=after, level=level, status_message=status))

    assert WORD.encode() not in encode_trace(trace, CONTEXT)


@given(JSON)
def test_masking_keeps_what_has_nothing_to_hide(value: object) -> None:
    """Shape and values stay where no rule finds anything."""
    (item,) = mask_content(trace_with(input={"a": value}, output="18 degrees"), masker()).observations

    assert item.output == "18 degrees"
    assert isinstance(item.input, dict)


def test_the_policy_can_differ_by_endpoint_and_for_temporary_chats() -> None:
    rule = ContentRule(Rule(Fact.ENDPOINT, "openAI"), ContentChoice.NONE)
    by_endpoint = Policies(content_rules=(rule,))
    temporary = Policies(temporary=TemporaryPolicy.METADATA)
    own = turn_record(response_row(endpoint="FakeCo"), user_row(text=WORD))

    assert WORD.encode() in encoded(own, policies=by_endpoint)
    assert WORD.encode() not in encoded(with_word("question", WORD), policies=by_endpoint)
    hidden = turn_record(response_row(isTemporary=True), user_row(text=WORD, isTemporary=True))
    assert WORD.encode() not in encoded(hidden, policies=temporary)
    assert WORD.encode() in encoded(hidden, policies=Policies(temporary=TemporaryPolicy.FULL))
