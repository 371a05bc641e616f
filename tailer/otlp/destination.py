"""An OTLP destination as the daemon opens it: the sink for spans, what comes after, and metrics where asked for."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tailer.events import Emit
from tailer.flow.ports import UNCONDITIONAL, Permit
from tailer.otlp.connection import OtlpConnection
from tailer.otlp.encoding import describe_resource
from tailer.otlp.followups import OtlpFollowups
from tailer.otlp.metrics import GenAiMetrics
from tailer.otlp.options import OtlpOptions
from tailer.otlp.spans import OtlpSpans
from tailer.outbound.proof import Proven, Unreachable


@dataclass(frozen=True, slots=True)
class OtlpDestination:
    """The parts of one destination. `prove` asks whether the receiver takes spans; it raises DestinationError for
    refused keys and for an address where nothing takes OTLP.

    Where metrics are asked for, `metrics.observe` wants every acknowledged trace, and `metrics.run` a task of its own;
    the last report is sent when the destination is closed.
    """

    spans: OtlpSpans
    followups: OtlpFollowups
    prove: Callable[[], Awaitable[Proven | Unreachable]]
    metrics: GenAiMetrics | None = None


@asynccontextmanager
async def open_otlp(
    options: OtlpOptions,
    emit: Emit,
    *,
    connections: int,
    permit: Permit = UNCONDITIONAL,
    environment: str | None = None,
    release: str | None = None,
) -> AsyncIterator[OtlpDestination]:
    """The destination for as long as the block lasts. `environment` and `release` go into the resource. Raises
    DestinationError, which names the variable, for unusable certificates or an unusable proxy."""
    resource = describe_resource(options, environment=environment, release=release)
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(
            OtlpConnection(options.traces, emit, connections=connections, permit=permit)
        )
        spans = OtlpSpans(way, resource, emit)
        metrics = None
        if options.metrics is not None:
            metrics_way = await stack.enter_async_context(
                OtlpConnection(options.metrics, emit, connections=1, permit=permit)
            )
            metrics = GenAiMetrics(
                metrics_way, resource, emit, interval=options.metrics_interval, wall_clock=time.time
            )
        yield OtlpDestination(spans, OtlpFollowups(spans, emit), way.prove, metrics)
        if metrics is not None and permit.holds():
            await metrics.report()
