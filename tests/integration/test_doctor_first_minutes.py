"""What the doctor finds of a new installation: LibreChat that traces too, spending nobody follows, wrong addresses."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from tailer.core.identity import observation_id, turn_trace_id
from tailer.operations.doctor.addresses import check_addresses, is_in_container
from tailer.operations.doctor.examination import examine
from tailer.operations.doctor.findings import Finding, Verdict, failed, passed
from tailer.settings import Settings
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, Route, answer
from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.samples import (
    SampleSpan,
    encode_protobuf,
    generation_span,
    request_headers,
    root_span,
)
from tests.integration.running import running, settings_for
from tests.rows import answer as answered
from tests.rows import question, transaction

QUESTION, ANSWER = str(uuid4()), str(uuid4())


async def findings_of(databases: Databases, fake: FakeLangfuse, **changed: Any) -> dict[str, Finding]:
    settings = settings_for(databases, fake, http_port=0, **{"lease_time": timedelta(seconds=1), **changed})
    found = await examine(settings, downtime=timedelta(hours=1))
    return {finding.check: finding for finding in found}


async def trace_natively(fake: FakeLangfuse, *spans: SampleSpan) -> None:
    """Send spans as LibreChat's own client does: not the tailer's, in the conversation's session."""
    async with httpx.AsyncClient(trust_env=False) as client:
        sent = await client.post(
            f"{fake.url}/api/public/otel/v1/traces",
            content=encode_protobuf([span.having({names.SESSION_ID: "c1"}) for span in spans]),
            headers=request_headers(public_key=fake.public_key, secret_key=fake.secret_key),
        )
    assert sent.status_code == 200


async def ask_and_answer(databases: Databases) -> None:
    rows = [question(QUESTION, None), answered(ANSWER, QUESTION)]
    await databases.source["messages"].insert_many(rows)


@pytest.mark.parametrize(
    "trace_id", ["f" * 32, turn_trace_id(ANSWER)], ids=["0.8.1 to 0.8.6: its own id", "0.8.7: the same id"]
)
async def test_a_librechat_that_traces_without_a_mark_is_found(databases: Databases, trace_id: str) -> None:
    """Its rows say nothing; its traces are in the session of the conversation."""
    await ask_and_answer(databases)
    async with FakeLangfuse() as fake:
        await trace_natively(fake, root_span(trace_id), generation_span(trace_id))
        found = (await findings_of(databases, fake))["no second tracing"]

    assert found.verdict is Verdict.WARN
    assert found.seen.startswith("1 of the last 1 conversations")
    assert "LANGFUSE_PUBLIC_KEY" in (found.remedy or "")


async def test_the_tailers_own_traces_are_no_second_tracing(databases: Databases) -> None:
    """Turns, titles, and questions that nobody answered; the sessions of other conversations are not looked at."""
    async with FakeLangfuse() as fake:
        async with running(databases, fake, unanswered_after=timedelta(seconds=1)) as run:
            await ask_and_answer(databases)
            await databases.source["messages"].insert_one(question(str(uuid4()), ANSWER))
            await run.until(lambda: len(fake.trace_ids()) == 2)
        other = root_span("e" * 32).having({names.SESSION_ID: "another"})
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(
                f"{fake.url}/api/public/otel/v1/traces",
                content=encode_protobuf([other]),
                headers=request_headers(public_key=fake.public_key, secret_key=fake.secret_key),
            )
        found = (await findings_of(databases, fake))["no second tracing"]

    assert (found.verdict, found.seen) == (
        Verdict.PASS, "the last 1 conversations have no traces but the tailer's",
    )  # fmt: skip


async def test_a_second_root_in_the_tailers_own_trace_is_found(databases: Databases) -> None:
    """Both send the turn: the sums of the trace hold it twice."""
    await ask_and_answer(databases)
    trace_id = turn_trace_id(ANSWER)
    async with FakeLangfuse() as fake:
        own = root_span(trace_id, observation_id(ANSWER, "root"))
        await trace_natively(fake, own)
        assert (await findings_of(databases, fake))["no second tracing"].verdict is Verdict.PASS

        await trace_natively(fake, root_span(trace_id))
        assert (await findings_of(databases, fake))["no second tracing"].verdict is Verdict.WARN


@pytest.mark.parametrize("status", [404, 429, 500])
async def test_a_langfuse_that_shows_no_sessions_is_skipped(databases: Databases, status: int) -> None:
    """Older servers have no such read, and the Hobby plan has few."""
    await ask_and_answer(databases)
    async with FakeLangfuse() as fake:
        fake.faults.add(answer(status, route=Route.OBSERVATIONS, times=None))
        found = (await findings_of(databases, fake))["no second tracing"]

    assert found.verdict is Verdict.SKIP


async def test_spending_over_the_api_is_named_while_nobody_follows_it(databases: Databases) -> None:
    """LibreChat stores no message for it; what belongs to a chat is none."""
    await ask_and_answer(databases)
    chat = [transaction(messageId=ANSWER), transaction(messageId=ANSWER, tokenType="prompt")]
    await databases.source["transactions"].insert_many(chat)
    async with FakeLangfuse() as fake:
        assert (await findings_of(databases, fake))["spending over the API"].verdict is Verdict.PASS

        over_api = transaction(messageId="resp_1", conversationId="resp_1")
        await databases.source["transactions"].insert_one(over_api)
        found = (await findings_of(databases, fake))["spending over the API"]
        followed = (await findings_of(databases, fake, stream_transactions=True))["spending over the API"]

    assert found.verdict is Verdict.WARN
    assert found.seen.startswith("1 of the last 3 transactions")
    assert "TAILER_STREAM_TRANSACTIONS=true" in (found.remedy or "")
    assert followed.verdict is Verdict.PASS


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kubernetes tells every container."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")


def container_settings(**changed: Any) -> Settings:
    given = {
        "mongo_uri": SecretStr("mongodb://mongodb:27017/LibreChat"),
        "state_uri": SecretStr("mongodb://mongodb:27017/LibreChat"),
        "langfuse_url": "https://langfuse.example.com",
        "langfuse_public_key": "pk-lf-1",
        "langfuse_secret_key": SecretStr("sk-lf-1"),
        "http_host": "::",
    }
    return Settings(**{**given, **changed})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "LOCALHOST"])
@pytest.mark.parametrize(
    ("setting", "name", "check"),
    [
        ("mongo_uri", "TAILER_MONGO_URI", "MongoDB reachable"),
        ("state_uri", "TAILER_STATE_URI", "state database"),
        ("langfuse_url", "LANGFUSE_HOST", "Langfuse reachable"),
    ],
)
def test_an_address_that_means_the_container_itself_is_named(
    host: str, setting: str, name: str, check: str
) -> None:
    """Copied from LibreChat's .env, where it means the machine outside."""
    url = (
        f"http://{host}:3000" if setting == "langfuse_url" else SecretStr(f"mongodb://{host}:27017/LibreChat")
    )
    settings = container_settings(**{setting: url})
    broken = [failed(check, "ServerSelectionTimeoutError", "look")]

    (found,) = check_addresses(settings, broken, in_container=True)
    assert found.verdict is Verdict.FAIL
    assert found.seen.startswith(f"{name} names ")
    assert "service" in (found.remedy or "")
    # With the host's network, or a sidecar, something answers there.
    assert check_addresses(settings, [passed(check, "there")], in_container=True) == []
    assert check_addresses(settings, broken, in_container=False) == []


def test_names_of_services_are_no_such_address() -> None:
    broken = [failed("MongoDB reachable", "x", "y"), failed("Langfuse reachable", "x", "y")]

    assert check_addresses(container_settings(), broken, in_container=True) == []


def test_a_port_that_only_the_container_reaches_is_named() -> None:
    (found,) = check_addresses(container_settings(http_host="localhost"), [], in_container=True)

    assert found.verdict is Verdict.WARN
    assert "TAILER_HTTP_HOST" in found.seen


@pytest.mark.usefixtures("inside")
async def test_the_doctor_tells_what_a_container_reaches(databases: Databases) -> None:
    assert is_in_container()
    uri = SecretStr("mongodb://127.0.0.1:1/LibreChat")
    async with FakeLangfuse() as fake:
        found = await findings_of(databases, fake, mongo_uri=uri, http_host="::")

    assert found["MongoDB reachable"].verdict is Verdict.FAIL
    assert found["addresses"].seen.startswith("TAILER_MONGO_URI names 127.0.0.1")
