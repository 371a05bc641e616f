"""The fake Langfuse server answers reads, scores and deletions in the shapes the Langfuse SDK expects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langfuse.api import AsyncLangfuseAPI, CreateScoreRequest, ScoreDataType
from langfuse.api.commons.errors import Error, UnauthorizedError

from tests.fakes.langfuse import EVENTS_ONLY, LEGACY, FakeLangfuse, Route
from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.samples import (
    GENERATION_ID,
    ROOT_ID,
    SECOND,
    START,
    TRACE_ID,
    SampleSpan,
    encode_protobuf,
    generation_span,
    request_headers,
    root_span,
)

OTHER_TRACE_ID = "f" * 32
EXPORT = "/api/public/otel/v1/traces"
SCORES = "/api/public/scores"
SCORE: dict[str, Any] = {
    "id": "feedback-1",
    "traceId": TRACE_ID,
    "name": "user-feedback",
    "value": 1,
    "dataType": "BOOLEAN",
    "timestamp": "2025-10-09T08:00:00.000Z",
    "comment": "good",
}


@asynccontextmanager
async def langfuse(fake: FakeLangfuse) -> AsyncIterator[AsyncLangfuseAPI]:
    """The SDK's own client against the fake."""
    async with httpx.AsyncClient() as client:
        yield AsyncLangfuseAPI(
            base_url=fake.url, username=fake.public_key, password=fake.secret_key, httpx_client=client
        )


@asynccontextmanager
async def connection(fake: FakeLangfuse) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client with the right keys."""
    headers = {**request_headers(), "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=fake.url, headers=headers) as client:
        yield client


async def send(fake: FakeLangfuse, *spans: SampleSpan) -> None:
    """Post spans that must be accepted."""
    async with httpx.AsyncClient(base_url=fake.url) as client:
        response = await client.post(EXPORT, content=encode_protobuf(spans), headers=request_headers())
    assert response.status_code == 200, response.text


async def test_the_sdk_reads_what_was_sent() -> None:
    """All field groups of an observation parse in the SDK and say what the span said."""
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, root_span(), generation_span())
        groups = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
        found = (await api.observations.get_many(trace_id=TRACE_ID, fields=groups)).data
        generation, root = found

        assert (generation.id, generation.trace_id, generation.parent_observation_id) == (
            GENERATION_ID,
            TRACE_ID,
            ROOT_ID,
        )
        assert generation.start_time == datetime.fromtimestamp(START // SECOND, UTC) + timedelta(
            milliseconds=123
        )
        assert (generation.model, generation.total_cost, generation.latency) == ("gpt-5", 0.003, 2.0)
        assert generation.usage_details == {
            "input": 120,
            "output": 30,
            "input_cached_tokens": 0,
            "total": 150,
        }
        assert (root.id, root.model, root.status_message) == (ROOT_ID, "", "")
        assert (generation.session_id, generation.user_id, generation.environment, generation.tags) == (
            "conversation-1",
            "user-1",
            "test",
            ["tag"],
        )


async def test_the_sdk_gets_core_and_basic_fields_unless_it_asks() -> None:
    """Without `fields` there is no input, no usage and no metadata in the answer."""
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, root_span())
        (root,) = (await api.observations.get_many(trace_id=TRACE_ID)).data

        assert (root.name, root.type, root.is_root_observation, root.input, root.metadata) == (
            "turn",
            "AGENT",
            True,
            None,
            None,
        )


async def test_the_sdk_checks_keys_and_version() -> None:
    """Projects answer the authentication check, health tells the version and asks for no keys."""
    async with FakeLangfuse() as fake, langfuse(fake) as api, httpx.AsyncClient() as client:
        (project,) = (await api.projects.get()).data
        health = await api.health.health()
        stranger = AsyncLangfuseAPI(
            base_url=fake.url, username=fake.secret_key, password=fake.public_key, httpx_client=client
        )

        assert (project.id, project.organization.name) == ("project-test", "Test organization")
        assert (health.status, health.version) == ("OK", "4.59.0")
        assert (await stranger.health.health()).status == "OK"
        with pytest.raises(UnauthorizedError):
            await stranger.projects.get()


async def test_the_sdk_creates_reads_and_deletes_a_score() -> None:
    """A list is accepted with 202, read back by the v3 route, and gone after the deletion."""
    moment = datetime(2025, 10, 9, 8, tzinfo=UTC)
    request = CreateScoreRequest(
        id="feedback-1",
        trace_id=TRACE_ID,
        name="user-feedback",
        value=1,
        data_type=ScoreDataType("BOOLEAN"),
        timestamp=moment,
    )
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await api.scores.create(request=[request])
        (score,) = (await api.scores.get_many(trace_id=TRACE_ID, fields="subject,details")).data
        await api.scores.delete("feedback-1")

        assert (score.id, score.value, score.data_type, score.timestamp) == (
            "feedback-1",
            True,
            "BOOLEAN",
            moment,
        )
        assert score.subject is not None
        assert (score.subject.kind, score.subject.id) == ("trace", TRACE_ID)
        assert ((await api.scores.get_many()).data, fake.scores.deleted_ids) == ([], ["feedback-1"])
        assert fake.requests[Route.SCORES, "202"] == 1


async def test_the_sdk_deletes_traces() -> None:
    """Deleted traces are read no more; the deletion is on record."""
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, root_span(), root_span(trace_id=OTHER_TRACE_ID))
        await api.trace.delete_multiple(trace_ids=[TRACE_ID])

        assert (fake.trace_ids(), fake.state.spans.deleted_trace_ids) == ([OTHER_TRACE_ID], [TRACE_ID])
        assert [row.trace_id for row in (await api.observations.get_many()).data] == [OTHER_TRACE_ID]


async def test_observations_are_filtered_by_any_of_many_traces() -> None:
    """One read can look for many traces: the structured filter with stringOptions."""
    any_of = [
        {"type": "stringOptions", "column": "traceId", "operator": "any of", "value": [TRACE_ID, "e" * 32]}
    ]
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, root_span(), generation_span(), root_span(trace_id=OTHER_TRACE_ID))
        found = (await api.observations.get_many(filter=json.dumps(any_of))).data

        assert [(row.trace_id, row.id) for row in found] == [(TRACE_ID, GENERATION_ID), (TRACE_ID, ROOT_ID)]


async def test_a_filter_wins_over_the_parameter_for_the_same_column() -> None:
    """The parameter for the filtered column is ignored."""
    condition = {"type": "stringOptions", "column": "traceId", "operator": "any of", "value": [TRACE_ID]}
    query = {"filter": json.dumps([condition]), "traceId": OTHER_TRACE_ID}
    async with FakeLangfuse() as fake, connection(fake) as client:
        await send(fake, root_span(), root_span(trace_id=OTHER_TRACE_ID))
        found = await client.get("/api/public/v2/observations", params=query)

        assert [row["traceId"] for row in found.json()["data"]] == [TRACE_ID]


@pytest.mark.parametrize(
    "query",
    [
        {"traceid": TRACE_ID},
        {"limit": "1001"},
        {"cursor": "???"},
        {"filter": "{"},
        {"filter": '[{"type": "string", "column": "trace", "operator": "=", "value": "x"}]'},
        {"filter": "{}"},
        {"filter": "[7]"},
        {"filter": '[{"type": "stringOptions", "column": "traceId", "operator": "any of", "value": []}]'},
        {"filter": '[{"type": "stringOptions", "column": "traceId", "operator": "any of", "value": "x"}]'},
        {"parseIoAsJson": "true"},
    ],
)
async def test_a_read_that_langfuse_would_misunderstand_is_refused(query: dict[str, str]) -> None:
    """Unknown parameters, columns and malformed values give 400 instead of everything."""
    async with FakeLangfuse() as fake, connection(fake) as client:
        response = await client.get("/api/public/v2/observations", params=query)

        assert response.status_code == 400


async def test_a_cursor_leads_through_all_pages_newest_first() -> None:
    """Pages neither overlap nor leave anything out."""
    spans = [
        replace(root_span(span_id=f"{number:016x}"), start=START + number * 10**6) for number in range(1, 8)
    ]
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, *spans)
        found: list[str] = []
        cursor: str | None = None
        pages = 0
        while cursor is not None or pages == 0:
            page = await api.observations.get_many(limit=3, cursor=cursor)
            found.extend(row.id for row in page.data)
            cursor = page.meta.cursor
            pages += 1

        assert (found, pages) == ([span.span_id for span in reversed(spans)], 3)


async def test_a_span_that_was_sent_twice_is_read_twice() -> None:
    """Reads do not deduplicate, as Langfuse does not."""
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, root_span())
        await send(fake, root_span())

        assert len((await api.observations.get_many(trace_id=TRACE_ID)).data) == 2


async def test_a_span_becomes_visible_some_time_after_it_was_accepted() -> None:
    """Accepted is not readable yet: Langfuse ingests in the background."""
    now = [1_760_000_000.0]
    async with FakeLangfuse(visible_after_seconds=5.0, clock=lambda: now[0]) as fake, langfuse(fake) as api:
        await send(fake, root_span())
        now[0] += 4.9
        early = (await api.observations.get_many(trace_id=TRACE_ID)).data
        now[0] += 0.2
        late = (await api.observations.get_many(trace_id=TRACE_ID)).data

        assert (len(early), len(late), len(fake.spans)) == (0, 1, 1)


async def test_of_metadata_the_trace_wins_and_values_are_read_as_json() -> None:
    """Another scope than that of an SDK has all attributes besides."""
    noted = root_span().having(
        {
            names.METADATA_PREFIX + "agent_id": "own",
            names.TRACE_METADATA_PREFIX + "agent_id": "the trace's",
            names.TRACE_METADATA_PREFIX + "branch_index": "1",
        }
    )
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, noted)
        (row,) = (await api.observations.get_many(fields="metadata,metrics")).data

        assert row.metadata is not None
        assert (row.metadata["agent_id"], row.metadata["branch_index"]) == ("the trace's", 1)
        assert row.metadata["attributes.user.id"] == "user-1"


async def test_an_observation_without_duration_has_no_latency() -> None:
    """Not zero, which would be a time."""
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, replace(root_span(), end=START))
        (row,) = (await api.observations.get_many(fields="metrics")).data

        assert row.latency is None


async def test_a_server_of_release_3_reads_single_observations_only() -> None:
    """4.16 in its legacy mode; in its own mode, and later, it is the other way round."""
    paths = ("/api/public/v2/observations", f"/api/public/observations/{ROOT_ID}")
    async with FakeLangfuse(release=LEGACY) as old, FakeLangfuse(release=EVENTS_ONLY) as new:
        for fake, expected in ((old, [404, 200]), (new, [200, 404])):
            await send(fake, root_span())
            async with connection(fake) as client:
                assert [(await client.get(path)).status_code for path in paths] == expected
                missing = await client.get(f"/api/public/observations/{'e' * 16}")
                assert (missing.status_code, missing.headers["Content-Type"][:16]) == (
                    404,
                    "application/json",
                )


async def test_reads_are_limited_by_the_minute_where_the_fake_stands_for_the_cloud() -> None:
    """The last of them is refused already, with the time until the next minute; spans have no such limit."""
    now = [1_760_000_000.0]
    async with FakeLangfuse(reads_a_minute=3, clock=lambda: now[0]) as fake, connection(fake) as client:
        read = [await client.get("/api/public/v2/observations") for _ in range(3)]
        now[0] += 20
        score = await client.post(SCORES, json=[SCORE])
        await send(fake, root_span())
        now[0] += 40
        again = await client.get("/api/public/v2/observations")

        assert [response.status_code for response in (*read, score, again)] == [200, 200, 429, 429, 200]
        assert [response.headers["Retry-After"] for response in (read[2], score)] == ["60", "40"]


async def test_a_deletion_is_done_some_time_after_it_was_asked_for() -> None:
    """By a worker."""
    now = [1_760_000_000.0]
    async with FakeLangfuse(deleted_after_seconds=100, clock=lambda: now[0]) as fake, langfuse(fake) as api:
        await send(fake, root_span())
        await api.trace.delete_multiple(trace_ids=[TRACE_ID])
        at_once = fake.trace_ids()
        now[0] += 101

        assert (at_once, fake.trace_ids()) == ([TRACE_ID], [])


async def test_an_older_server_takes_no_lists_of_scores_and_dates_single_ones_itself() -> None:
    """An event keeps its time on every server."""
    now = 1_770_000_000.0
    event = {"id": "e1", "type": "score-create", "timestamp": SCORE["timestamp"]}
    body = {key: value for key, value in SCORE.items() if key != "timestamp"}
    async with FakeLangfuse(release=EVENTS_ONLY, clock=lambda: now) as fake, connection(fake) as client:
        in_list = await client.post(SCORES, json=[SCORE])
        alone = await client.post(SCORES, json=SCORE)
        dated = fake.scores.posted[-1]["timestamp"]
        batch = [{**event, "body": body}, {"id": "e2", "type": "trace-create", "body": {}}]
        enveloped = await client.post("/api/public/ingestion", json={"batch": batch})

        assert [response.status_code for response in (in_list, alone, enveloped)] == [400, 200, 207]
        assert (dated, fake.scores.posted[-1]["timestamp"]) == (
            "2026-02-02T02:40:00.000Z",
            "2025-10-09T08:00:00.000Z",
        )
        answer = enveloped.json()
        assert [row["id"] for row in answer["successes"]] == ["e1"]
        assert [(row["id"], row["status"]) for row in answer["errors"]] == [("e2", 400)]


async def test_long_metadata_is_cut_unless_it_is_asked_for() -> None:
    """Metadata above 200 characters comes whole only for the keys named."""
    long = root_span().having({names.METADATA_PREFIX + "note": "n" * 300})
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        await send(fake, long)
        (short,) = (await api.observations.get_many(fields="metadata")).data
        (whole,) = (await api.observations.get_many(fields="metadata", expand_metadata="note")).data

        assert short.metadata is not None
        assert whole.metadata is not None
        assert (len(short.metadata["note"]), len(whole.metadata["note"])) == (200, 300)


async def test_a_single_score_is_answered_with_its_id() -> None:
    """The older form of the route: one object, status 200."""
    async with FakeLangfuse() as fake, connection(fake) as client:
        response = await client.post(SCORES, json=SCORE)

        assert (response.status_code, response.json()) == (200, {"id": "feedback-1"})


async def test_a_score_overwrites_the_one_with_the_same_id_name_and_day() -> None:
    """A second rating on the same day replaces the first; on another day it would be a second score."""
    async with FakeLangfuse() as fake, connection(fake) as client:
        await client.post(SCORES, json=[SCORE])
        await client.post(SCORES, json=[{**SCORE, "value": 0, "timestamp": "2025-10-09T23:00:00+00:00"}])
        same_day = [row["value"] for row in fake.scores.current.values()]
        await client.post(SCORES, json=[{**SCORE, "timestamp": "2025-10-10T00:00:00Z"}])

        assert (same_day, len(fake.scores.current), len(fake.scores.posted)) == ([False], 2, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"value": "good"},
        {"value": 2},
        {"dataType": "STARS"},
        {"dataType": "NUMERIC", "value": "1"},
        {"dataType": "TEXT", "value": "t" * 501},
        {"traceId": None},
        {"sessionId": "conversation-1"},
        {"traceId": None, "sessionId": "conversation-1", "observationId": ROOT_ID},
        {"environment": "langfuse-x"},
        {"source": "EVAL"},
        {"timestamp": "2025-10-09T08:00:00"},
        {"trace_id": TRACE_ID},
    ],
)
async def test_an_invalid_score_is_rejected_and_the_others_are_kept(change: dict[str, Any]) -> None:
    """207 counts what was accepted and rejected; a single one gets 400."""
    async with FakeLangfuse() as fake, connection(fake) as client:
        mixed = await client.post(SCORES, json=[SCORE, {**SCORE, "id": "bad", **change}])
        single = await client.post(SCORES, json={**SCORE, "id": "bad", **change})

        assert (mixed.status_code, mixed.json()["accepted"], mixed.json()["rejected"]) == (207, 1, 1)
        assert (single.status_code, fake.score("bad"), len(fake.violations)) == (400, None, 2)


async def test_a_correction_is_always_named_output() -> None:
    """Langfuse forces the name of a correction."""
    async with FakeLangfuse() as fake, connection(fake) as client:
        await client.post(
            SCORES, json=[{**SCORE, "dataType": "CORRECTION", "value": "new text", "name": "edit"}]
        )

        assert [row["name"] for row in fake.scores.posted] == ["output"]


async def test_an_unknown_field_group_of_scores_is_refused() -> None:
    """The v3 route answers 400 to names it does not know."""
    async with FakeLangfuse() as fake, langfuse(fake) as api:
        with pytest.raises(Error):
            await api.scores.get_many(fields="everything")


@pytest.mark.parametrize(
    "body", [{}, {"traceIds": []}, {"traceIds": "x"}, {"traceIds": [TRACE_ID], "more": 1}]
)
async def test_a_deletion_without_a_list_of_traces_is_refused(body: dict[str, Any]) -> None:
    """The body is exactly one list of one to a thousand ids."""
    async with FakeLangfuse() as fake, connection(fake) as client:
        response = await client.request("DELETE", "/api/public/traces", json=body)

        assert response.status_code == 400


async def test_what_is_not_there_is_a_web_page_and_is_noted() -> None:
    """An address Langfuse does not have answers HTML with 404."""
    async with FakeLangfuse() as fake, connection(fake) as client:
        response = await client.post("/api/public/sessions", json={})

        assert (response.status_code, response.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert fake.state.unknown_requests == ["POST /api/public/sessions"]
