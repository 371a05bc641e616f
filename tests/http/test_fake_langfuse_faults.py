"""Every fault of the fake Langfuse server does what its name says, as often as it was told."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.fakes.langfuse import (
    Effect,
    FakeLangfuse,
    Fault,
    Route,
    answer,
    bad_span,
    cut,
    delay,
    garbage,
    hang,
    html_page,
    reset,
    too_large,
)
from tests.fakes.langfuse.faults import FaultPlan
from tests.fakes.langfuse.samples import encode_protobuf, generation_span, request_headers, root_span

EXPORT = "/api/public/otel/v1/traces"
BODY = encode_protobuf([root_span(), generation_span()])


async def send(fake: FakeLangfuse, body: bytes = BODY) -> httpx.Response:
    """Post a batch on a connection of its own."""
    async with httpx.AsyncClient(base_url=fake.url) as client:
        return await client.post(EXPORT, content=body, headers=request_headers())


async def statuses(fake: FakeLangfuse, count: int) -> list[int]:
    """The statuses of `count` batches one after the other."""
    return [(await send(fake)).status_code for _ in range(count)]


async def test_too_many_requests_tells_when_to_come_back() -> None:
    """429 carries Retry-After, is given as often as told, and stores nothing."""
    async with FakeLangfuse() as fake:
        fake.faults.add(answer(429, retry_after="7", times=2))
        first = await send(fake)
        rest = await statuses(fake, 2)

        assert (first.status_code, first.headers["Retry-After"], rest) == (429, "7", [429, 200])
        assert (len(fake.spans), fake.requests[Route.SPANS, "429"]) == (2, 2)


@pytest.mark.parametrize("status", [401, 403, 500, 502, 503])
async def test_a_status_by_order_is_given_and_nothing_is_stored(status: int) -> None:
    """Refusals and server errors come once and leave nothing behind."""
    async with FakeLangfuse() as fake:
        fake.faults.add(answer(status))

        assert (await statuses(fake, 1), len(fake.spans)) == ([status], 0)
        assert await statuses(fake, 1) == [200]


async def test_an_error_can_come_after_the_batch_was_kept() -> None:
    """A gateway that gives up on a server that does not: 502, and the spans are there."""
    async with FakeLangfuse() as fake:
        fake.faults.add(answer(502, stored=True))

        assert (await statuses(fake, 1), len(fake.spans)) == ([502], 2)


async def test_a_body_above_the_ordered_size_is_too_large() -> None:
    """413 depends on the bytes sent and lasts until the faults are cleared."""
    small = encode_protobuf([root_span()])
    async with FakeLangfuse() as fake:
        fake.faults.add(too_large(len(small)))
        large_first, fits = await send(fake), await send(fake, small)
        large_again = await send(fake)
        fake.faults.clear()

        assert (large_first.status_code, fits.status_code, large_again.status_code) == (413, 200, 413)
        assert (await send(fake)).status_code == 200


async def test_one_bad_span_refuses_its_batch_without_being_named() -> None:
    """400 for any batch that holds the marker in a name or an input; the answer gives no id away."""
    async with FakeLangfuse() as fake:
        fake.faults.add(bad_span("What is the time"), bad_span("other name"))
        with_marker = await send(fake)
        without = await send(fake, encode_protobuf([generation_span()]))
        by_name = await send(fake, encode_protobuf([root_span(), generation_span()]))

        assert (with_marker.status_code, without.status_code, by_name.status_code) == (400, 200, 400)
        assert root_span().span_id not in with_marker.text


@pytest.mark.parametrize(("stored", "kept"), [(False, 0), (True, 2)])
async def test_a_request_that_is_never_answered_times_out(*, stored: bool, kept: int) -> None:
    """The same silence, before or after the batch was accepted."""
    patience = httpx.Timeout(30, read=0.2)
    async with FakeLangfuse() as fake, httpx.AsyncClient(base_url=fake.url, timeout=patience) as client:
        fake.faults.add(hang(stored=stored))
        with pytest.raises(httpx.ReadTimeout):
            await client.post(EXPORT, content=BODY, headers=request_headers())

        outcome = "hang after" if stored else "hang before"
        await fake.wait_until(lambda: fake.requests[Route.SPANS, outcome] == 1)
        assert len(fake.spans) == kept
        assert (await send(fake)).status_code == 200


async def test_a_held_request_is_cut_when_it_is_released() -> None:
    """Release ends the waiting without an answer."""
    async with FakeLangfuse() as fake:
        fake.faults.add(hang(stored=False))
        sending = asyncio.create_task(send(fake))
        await fake.wait_until(lambda: fake.requests[Route.SPANS, "hang before"] == 1)
        fake.release()

        with pytest.raises(httpx.TransportError):
            await sending


async def test_closing_does_not_wait_for_held_requests() -> None:
    """A fake that holds a request closes at once."""
    async with asyncio.timeout(5):
        async with FakeLangfuse() as fake:
            fake.faults.add(hang(stored=True))
            sending = asyncio.create_task(send(fake))
            await fake.wait_until(lambda: len(fake.spans) == 2)
            await fake.wait_until(lambda: fake.requests[Route.SPANS, "hang after"] == 1)

        with pytest.raises(httpx.TransportError):
            await sending


@pytest.mark.parametrize(("stored", "kept"), [(False, 0), (True, 2)])
async def test_a_cut_connection_gives_no_answer(*, stored: bool, kept: int) -> None:
    """The connection closes before or after the batch was accepted, and the client cannot tell which."""
    async with FakeLangfuse() as fake:
        fake.faults.add(cut(stored=stored))
        with pytest.raises(httpx.RemoteProtocolError):
            await send(fake)

        assert len(fake.spans) == kept


async def test_a_reset_connection_is_reset() -> None:
    """RST arrives as a read error, not as an end of the stream."""
    async with FakeLangfuse() as fake:
        fake.faults.add(reset())
        with pytest.raises(httpx.ReadError):
            await send(fake)

        assert (fake.spans, fake.requests[Route.SPANS, "reset before"]) == ([], 1)


async def test_a_slow_request_is_done_even_when_the_client_has_gone() -> None:
    """A client's timeout does not stop the server: the batch is stored afterwards."""
    patience = httpx.Timeout(30, read=0.1)
    async with FakeLangfuse() as fake, httpx.AsyncClient(base_url=fake.url, timeout=patience) as client:
        fake.faults.add(delay(3600))
        with pytest.raises(httpx.ReadTimeout):
            await client.post(EXPORT, content=BODY, headers=request_headers())
        await fake.wait_until(lambda: fake.faults.as_json()[0]["fired"] == 1)
        before = len(fake.spans)
        fake.release()
        await fake.wait_until(lambda: len(fake.spans) == 2)

        assert before == 0


async def test_a_slow_answer_is_a_correct_answer() -> None:
    """A delay alone changes nothing but the time."""
    async with FakeLangfuse() as fake:
        fake.faults.add(delay(0.05))
        loop = asyncio.get_running_loop()
        started = loop.time()
        response = await send(fake)

        assert (response.status_code, loop.time() - started >= 0.05) == (200, True)


async def test_garbage_with_status_200_is_no_json() -> None:
    """A broken body that claims success; nothing was stored."""
    async with FakeLangfuse() as fake:
        fake.faults.add(garbage())
        response = await send(fake)

        assert (response.status_code, response.text, fake.spans) == (200, '{"partial', [])


@pytest.mark.parametrize("status", [200, 404])
async def test_a_web_page_answers_in_place_of_langfuse(status: int) -> None:
    """A proxy's page, with an error or, worse, with success."""
    async with FakeLangfuse() as fake:
        fake.faults.add(html_page(status))
        response = await send(fake)

        assert (response.status_code, response.headers["Content-Type"], fake.spans) == (
            status,
            "text/html",
            [],
        )


async def test_reads_can_be_refused_while_writes_are_taken() -> None:
    """A fault belongs to one kind of route."""
    async with FakeLangfuse() as fake, httpx.AsyncClient(base_url=fake.url) as client:
        fake.faults.add(answer(403, route=Route.OBSERVATIONS))
        written = await send(fake)
        refused = await client.get("/api/public/v2/observations", headers=request_headers())
        read = await client.get("/api/public/v2/observations", headers=request_headers())

        assert (written.status_code, refused.status_code, read.status_code) == (200, 403, 200)


async def test_a_fault_can_wait_for_its_turn() -> None:
    """`after` lets requests pass first, `times` ends it, and None never does."""
    async with FakeLangfuse() as fake:
        fake.faults.add(answer(500, after=1, times=2))

        assert await statuses(fake, 5) == [200, 500, 500, 200, 200]
        fake.faults.clear()
        fake.faults.add(answer(503, times=None))
        assert await statuses(fake, 3) == [503, 503, 503]


async def test_a_fault_for_any_route_hits_them_all() -> None:
    """Route ANY stands for every route."""
    async with FakeLangfuse() as fake, httpx.AsyncClient(base_url=fake.url) as client:
        fake.faults.add(answer(503, route=Route.ANY, times=2))
        health = await client.get("/api/public/health")

        assert (health.status_code, await statuses(fake, 2)) == (503, [503, 200])


def picks(plan: FaultPlan, count: int) -> list[bool]:
    """Whether each of `count` requests meets a fault."""
    return [
        plan.pick(Route.SPANS, body_bytes=0, holds=lambda _marker: False) is not None for _ in range(count)
    ]


def test_a_fault_with_a_probability_repeats_with_its_seed() -> None:
    """The same seed hits the same requests; about the ordered share of them."""
    first, second, other = FaultPlan(), FaultPlan(), FaultPlan()
    first.add(answer(500, times=None, probability=0.3, seed=7))
    second.add(answer(500, times=None, probability=0.3, seed=7))
    other.add(answer(500, times=None, probability=0.3, seed=8))
    hits = picks(first, 1000)

    assert (hits == picks(second, 1000), hits == picks(other, 1000)) == (True, False)
    assert 250 < sum(hits) < 350


def test_the_first_fault_wins_and_the_next_takes_over_when_it_is_spent() -> None:
    """Faults in force at the same time come one after the other."""
    plan = FaultPlan()
    plan.add(answer(500), answer(503))
    found = [plan.pick(Route.SPANS, body_bytes=0, holds=lambda _marker: False) for _ in range(3)]

    assert [None if fault is None else fault.status for fault in found] == [500, 503, None]


def test_a_fault_survives_its_way_through_json() -> None:
    """What a control request carries is the fault, and a misspelt one is an error."""
    fault = answer(429, retry_after="1", route=Route.SCORES, after=3)

    assert Fault.from_json(fault.as_json()) == fault
    with pytest.raises(ValueError, match="tims"):
        Fault.from_json({"effect": Effect.HANG, "tims": 1})
