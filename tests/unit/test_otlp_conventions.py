"""Spans by the GenAI conventions, read back with the protocol's own parser and held against the strict rules."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import ContentChoice, Policies
from tailer.core.trace.observations import Level, ObservationType, Trace
from tailer.otlp.conventions import describe_span
from tailer.otlp.encoding import describe_resource, encode_resource, encode_trace, frame_request
from tailer.otlp.options import OtlpOptions, SignalOptions
from tailer.otlp.providers import find_provider
from tests.fakes.otlp.decoding import ReceivedSpan, decode_spans
from tests.fakes.otlp.rules import REGISTERED, check_spans
from tests.recordings import TrueTurn
from tests.unit.documents import (
    MISSING,
    agent,
    agent_row,
    completion_row,
    conversation,
    conversation_row,
    prompt_row,
    response_row,
    structured_prompt_row,
    tool_part,
    traces_of,
    turn_record,
    usage_metadata,
    user_row,
)
from tests.unit.test_content_policy import KEY, MASKED, NONE, PLACES, WORD, with_word
from tests.unit.test_otlp import TRACES
from tests.unit.test_recorded_turns import TURNS, trace_of_turn

OPTIONS = OtlpOptions(SignalOptions("http://localhost:4318/v1/traces"))
RESOURCE = describe_resource(OPTIONS, environment="test", release="v1")


def request_of(traces: Sequence[Trace]) -> bytes:
    return frame_request(encode_resource(RESOURCE), [encode_trace(trace) for trace in traces])


def spans_of(*traces: Trace) -> list[ReceivedSpan]:
    """Strictly valid spans."""
    spans = decode_spans(request_of(traces))
    assert list(check_spans(spans)) == []
    return spans


def by_operation(spans: Sequence[ReceivedSpan], operation: str) -> list[ReceivedSpan]:
    return [span for span in spans if span.attributes.get("gen_ai.operation.name") == operation]


def messages(span: ReceivedSpan, direction: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(str(span.attributes[f"gen_ai.{direction}.messages"]))
    return found


@pytest.mark.parametrize(("name", "turn"), TURNS)
def test_every_recorded_turn_is_valid_under_the_conventions(name: str, turn: TrueTurn) -> None:
    """Of every release and every kind, with the ids and times that Langfuse gets."""
    trace = trace_of_turn(name, turn)
    spans = spans_of(trace)

    assert [(span.trace_id, span.span_id, span.parent_span_id) for span in spans] == [
        (trace.id, item.id, item.parent_id) for item in trace.observations
    ]
    for span, item in zip(spans, trace.observations, strict=True):
        assert span.start_nanoseconds == item.start_milliseconds * 1_000_000
        assert span.end_nanoseconds == max(item.start_milliseconds, item.end_milliseconds) * 1_000_000
        assert span.attributes["gen_ai.conversation.id"] == trace.session_id
        usage = item.usage or {}
        prompt = [count for bucket, count in usage.items() if bucket.startswith("input")]
        assert span.attributes.get("gen_ai.usage.input_tokens") == (sum(prompt) if prompt else None)
        assert span.attributes.get("gen_ai.usage.output_tokens") == usage.get("output")
        assert span.attributes.get("librechat.cost.total") == (item.cost or {}).get("total")


@settings(max_examples=60)
@given(TRACES)
def test_every_trace_can_be_encoded_and_read_back(trace: Trace) -> None:
    """Whatever its texts, numbers and settings are: attributes stand once and have a type."""
    spans = decode_spans(request_of([trace]))

    assert [span.span_id for span in spans] == [item.id for item in trace.observations]
    assert all(span.start_nanoseconds <= span.end_nanoseconds for span in spans)


def test_a_plain_turn_is_an_agent_with_one_chat() -> None:
    record = turn_record(
        response_row(endpoint="openAI", metadata=usage_metadata(108, 13)),
        user_row(text="The capital of France?"),
        prompt_row(108),
        completion_row(13),
        conversation=conversation(conversation_row(temperature=0.5, max_tokens=100, stop=["END"], promptPrefix="Be brief.", web_search=True)),
    )  # fmt: skip
    root, chat = spans_of(*traces_of(record))

    assert (root.name, root.parent_span_id) == ("invoke_agent", None)
    assert messages(root, "input") == [
        {"role": "user", "parts": [{"type": "text", "content": "The capital of France?"}]}
    ]
    assert messages(root, "output") == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Paris."}], "finish_reason": "stop"}
    ]
    assert root.attributes["librechat.outcome"] == "complete"
    assert root.attributes["librechat.trace.name"] == "librechat-turn"
    assert "librechat.outcome" not in chat.attributes
    assert chat.name == f"chat {chat.attributes['gen_ai.request.model']}"
    assert chat.parent_span_id == root.span_id
    assert chat.attributes["gen_ai.provider.name"] == "openai"
    assert chat.attributes["gen_ai.request.temperature"] == 0.5
    assert chat.attributes["gen_ai.request.max_tokens"] == 100
    assert chat.attributes["gen_ai.request.stop_sequences"] == ("END",)
    assert chat.attributes["librechat.request.web_search"] is True
    assert chat.attributes["gen_ai.usage.input_tokens"] == 108
    assert chat.attributes["gen_ai.usage.output_tokens"] == 13
    assert chat.attributes["librechat.usage.source"] == "reported"
    assert json.loads(str(chat.attributes["gen_ai.system_instructions"])) == [
        {"type": "text", "content": "Be brief."}
    ]


def test_tokens_of_the_cache_are_told_apart_and_are_among_those_of_the_prompt() -> None:
    record = turn_record(
        response_row(metadata=MISSING),
        user_row(),
        structured_prompt_row(10, write=30, read=50),
        completion_row(7),
    )
    (chat,) = by_operation(spans_of(*traces_of(record)), "chat")

    assert chat.attributes["gen_ai.usage.input_tokens"] == 90
    assert chat.attributes["gen_ai.usage.cache_read.input_tokens"] == 50
    assert chat.attributes["gen_ai.usage.cache_creation.input_tokens"] == 30
    assert chat.attributes["gen_ai.usage.output_tokens"] == 7


def test_an_estimate_is_marked_as_one() -> None:
    record = turn_record(
        response_row(metadata=MISSING, unfinished=True, text="Par"),
        user_row(),
        prompt_row(5),
        completion_row(2),
    )
    (chat,) = by_operation(spans_of(*traces_of(record, deadline_passed=True)), "chat")

    assert chat.attributes["librechat.usage.source"] == "estimated"


def test_a_tool_call_is_an_operation_of_its_own_with_arguments_and_result() -> None:
    record = turn_record(
        response_row(
            content=[
                {"type": "think", "think": "Look it up."},
                tool_part("web_search", args={"query": "time"}, output="noon", id="call_9"),
                {"type": "text", "text": "It is noon."},
            ],
            attachments=[
                {
                    "type": "web_search",
                    "toolCallId": "call_9",
                    "web_search": {"organic": [{"title": "Clock", "link": "https://clock.example"}]},
                }
            ],
        ),
        user_row(),
        prompt_row(10), completion_row(3), prompt_row(20), completion_row(5),
    )  # fmt: skip
    spans = spans_of(*traces_of(record))
    (tool,) = by_operation(spans, "execute_tool")
    (search,) = by_operation(spans, "retrieval")
    first = by_operation(spans, "chat")[0]

    assert tool.name == "execute_tool web_search"
    assert tool.attributes["gen_ai.tool.call.id"] == "call_9"
    assert json.loads(str(tool.attributes["gen_ai.tool.call.arguments"])) == {"query": "time"}
    assert tool.attributes["gen_ai.tool.call.result"] == "noon"
    assert search.parent_span_id == tool.span_id
    assert search.attributes["gen_ai.retrieval.query.text"] == "time"
    # LibreChat has no score of a web search, and the convention's form requires one.
    assert json.loads(str(search.attributes["librechat.retrieval.documents"])) == [
        {"id": "https://clock.example", "name": "Clock"}
    ]
    assert messages(first, "output") == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Look it up."},
                {"type": "tool_call", "name": "web_search", "id": "call_9", "arguments": {"query": "time"}},
            ],
            "finish_reason": "tool_call",
        }
    ]


@pytest.mark.parametrize(
    ("stored", "provider", "source"),
    [
        ("azureOpenAI", "azure.ai.openai", None),
        ("My Gateway", "My Gateway", None),
        (None, "anthropic", "model"),
    ],
)
def test_a_saved_agent_is_named_and_its_provider_is_the_stored_one_or_a_marked_guess(
    stored: str | None, provider: str, source: str | None
) -> None:
    record = turn_record(
        response_row(endpoint="agents", model="agent_1"),
        user_row(),
        prompt_row(5, model="claude-sonnet-4"), completion_row(2, model="claude-sonnet-4"),
        agent=agent(agent_row(id="agent_1", name="Helper", model="claude-sonnet-4", provider=stored)),
    )  # fmt: skip
    for span in spans_of(*traces_of(record)):
        assert span.attributes["gen_ai.provider.name"] == provider
        assert span.attributes.get("librechat.provider.source") == source

    root, *_ = spans_of(*traces_of(record))
    assert root.name == "invoke_agent Helper"
    assert root.attributes["gen_ai.agent.id"] == "agent_1"


@pytest.mark.parametrize(
    ("endpoint", "of_agent", "model", "provider"),
    [
        ("openAI", None, "claude-x", ("openai", False)),
        ("azureOpenAI", None, None, ("azure.ai.openai", False)),
        ("google", None, "gemini-2", ("gcp.gen_ai", False)),
        ("bedrock", None, None, ("aws.bedrock", False)),
        ("Mistral", None, None, ("mistral_ai", False)),
        ("xai", None, None, ("x_ai", False)),
        ("OpenRouter", None, "gpt-4o", ("OpenRouter", False)),
        ("agents", "anthropic", "gpt-4o", ("anthropic", False)),
        ("agents", None, "gpt-4o", ("openai", True)),
        ("agents", None, "us.anthropic.claude-sonnet", ("aws.bedrock", True)),
        (None, None, "gemini-2.5-pro", ("gcp.gen_ai", True)),
        (None, None, "o3-mini", ("openai", True)),
        ("agents", "agents", "llama", ("unknown", False)),
        (None, None, None, ("unknown", False)),
    ],
)
def test_a_provider_has_the_conventions_name_and_a_guess_says_so(
    endpoint: str | None, of_agent: str | None, model: str | None, provider: tuple[str, bool]
) -> None:
    assert find_provider(endpoint, of_agent, model) == provider


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("429 You exceeded your current quota", "429"),
        ('{"type": "token_balance", "balance": 0}', "token_balance"),
        ("An error occurred", "_OTHER"),
    ],
)
def test_an_error_has_a_status_a_type_and_the_providers_message(error: str, kind: str) -> None:
    record = turn_record(response_row(content=[{"type": "error", "error": error}]), user_row())
    root = spans_of(*traces_of(record))[0]

    assert (root.status_code, root.status_message) == (2, error)
    assert root.attributes["error.type"] == kind


def test_a_stopped_answer_is_no_error_and_says_so() -> None:
    record = turn_record(response_row(unfinished=True, text="Par"), user_row())
    root = spans_of(*traces_of(record, deadline_passed=True))[0]

    assert root.status_code == 0
    assert root.attributes["librechat.level"] == "WARNING"
    assert root.attributes["librechat.status_message"] == "stopped before the answer was complete"


def test_every_type_of_observation_has_its_span() -> None:
    (trace,) = traces_of(turn_record(response_row(), user_row()))
    for kind in ObservationType:
        shape = describe_span(trace, replace(trace.root, type=kind, level=Level.DEFAULT), leads=False)
        assert shape.name


def test_the_resource_says_where_spans_come_from_and_the_operators_own_attributes_win() -> None:
    options = replace(
        OPTIONS, service_name="chat", resource={"deployment.environment.name": "mine", "team": "a"}
    )

    assert describe_resource(options, environment="test", release=None) == {
        "service.name": "chat",
        "deployment.environment.name": "mine",
        "telemetry.sdk.name": "librechat-tailer",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": RESOURCE["telemetry.sdk.version"],
        "team": "a",
    }


@pytest.mark.parametrize("place", PLACES)
def test_the_planted_word_is_in_the_full_spans(place: str) -> None:
    """Else the next tests would show nothing."""
    assert WORD.encode() in request_of(traces_of(with_word(place, WORD), deadline_passed=True))


@pytest.mark.parametrize("place", PLACES)
def test_without_content_a_word_of_the_turn_is_nowhere_in_the_bytes(place: str) -> None:
    found = request_of(traces_of(with_word(place, WORD), deadline_passed=True, policies=NONE))

    assert WORD.encode() not in found
    assert list(check_spans(decode_spans(found))) == []


@pytest.mark.parametrize("place", PLACES)
def test_masked_content_holds_no_planted_address(place: str) -> None:
    def masker() -> Masker:
        return Masker(compile_rules([], []), KEY)

    record = with_word(place, "anna.smith@example.com")
    found = request_of(traces_of(record, deadline_passed=True, policies=MASKED, mask=masker))

    assert b"anna.smith" not in found
    assert b"[email:" in found
    assert list(check_spans(decode_spans(found))) == []


def test_content_that_cannot_be_masked_is_withheld_in_a_valid_span() -> None:
    def masker() -> Masker:
        return Masker(compile_rules(["x+"], []), KEY)

    record = with_word("earlier question", "x" * 1_500)
    policies = Policies(content=ContentChoice.MASKED)
    found = request_of(traces_of(record, deadline_passed=True, policies=policies, mask=masker))

    assert b"xxxxxxxx" not in found
    assert list(check_spans(decode_spans(found))) == []


ROW = re.compile(r"^\| (`[^|]+`) \| (?:text|int|double|JSON|as stored)", re.MULTILINE)


def documented() -> set[str]:
    """The attributes in the table of the documents."""
    text = (Path(__file__).parents[2] / "docs" / "otlp.md").read_text("utf-8")
    return {name for row in ROW.findall(text) for name in re.findall(r"`([a-z_.*]+)`", row)}


def sent() -> set[str]:
    """The attributes of every recorded turn, and of a turn with everything planted."""
    traces = [
        *(trace_of_turn(*parameters.values) for parameters in TURNS),  # type: ignore[arg-type]
        *(trace for place in PLACES for trace in traces_of(with_word(place, WORD), deadline_passed=True)),
    ]
    return {
        name for trace in traces for span in decode_spans(request_of([trace])) for name in span.attributes
    }


def test_every_attribute_that_is_sent_is_in_the_table_of_the_documents() -> None:
    rows = documented()
    metadata = {name for name in rows if name.endswith(".*")}

    assert metadata == {"librechat.request.*", "librechat.*", "librechat.feedback.*"}
    for name in sent():
        assert name in rows or name.startswith("librechat."), name
    assert {name for name in rows if name.startswith("gen_ai.")} <= REGISTERED


def test_no_representation_shows_headers_or_what_a_url_holds_besides_host_and_path() -> None:
    way = SignalOptions("https://u:secret@[::1]:8443/p?token=secret", {"k": "secret"})

    assert "secret" not in repr(OtlpOptions(way, way))
    assert way.shown_url == "https://[::1]:8443/p"
