"""The ports towards a destination in memory."""

import asyncio
import json
from collections.abc import Sequence

from tailer.core.identity import ObservationId, TraceId
from tailer.core.librechat.attached_files import AttachedFile
from tailer.core.trace.followup import Score
from tailer.core.trace.observations import Trace
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import DeliveryOutcome, LookupAnswer, Refused, Retry, StorageAway
from tests.memory.destination import MemoryDestination


class MemorySink:
    """A `Sink`: a chunk is a line of JSON, a payload the lines. `breaks_on` names turns that it cannot encode."""

    def __init__(self, destination: MemoryDestination) -> None:
        self._destination = destination
        self.breaks_on: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return "memory"

    def encode(self, trace: Trace) -> bytes:
        if trace.message_id in self.breaks_on:
            message = f"cannot encode {trace.message_id}"
            raise ArithmeticError(message)
        chunk = {
            "trace_id": trace.id,
            "record_id": trace.record_id,
            "message_id": trace.message_id,
            "observations": [
                {
                    "id": item.id,
                    "type": item.type.value,
                    "name": item.name,
                    "input": item.input,
                    "output": item.output,
                    "start_milliseconds": item.start_milliseconds,
                    "end_milliseconds": item.end_milliseconds,
                    "usage": item.usage,
                }
                for item in trace.observations
            ],
        }
        return json.dumps(chunk, default=str).encode() + b"\n"

    def frame(self, chunks: Sequence[bytes]) -> bytes:
        return b"".join(chunks)

    def unframe(self, payload: bytes, chunk_bytes: Sequence[int]) -> Sequence[bytes]:
        chunks, start = [], 0
        for size in chunk_bytes:
            chunks.append(payload[start : start + size])
            start += size
        return chunks

    def shrink(self, chunk: bytes) -> bytes | None:
        """Nothing to cut."""
        del chunk
        return None

    async def deliver(self, payload: bytes) -> DeliveryOutcome:
        return await self._destination.take(payload)

    async def find(self, probes: Sequence[Probe]) -> LookupAnswer:
        return await self._destination.look_up(probes)


class MemoryFollowups:
    """The `FollowupSink` of a destination."""

    def __init__(self, destination: MemoryDestination) -> None:
        self._destination = destination

    async def put_score(self, score: Score) -> DeliveryOutcome:
        return await self._destination.put_score(score)

    async def delete_score(self, score_id: str) -> DeliveryOutcome:
        return await self._destination.delete_score(score_id)

    async def delete_traces(self, trace_ids: Sequence[TraceId]) -> DeliveryOutcome:
        return await self._destination.delete_traces(trace_ids)


class MemoryMedia:
    """A `MediaLibrary` that has every file with a path, and none without; `trouble` is its answer while it is set."""

    def __init__(self) -> None:
        self.published: list[tuple[TraceId, tuple[str, ...]]] = []
        self.trouble: Retry | Refused | StorageAway | None = None
        self.seconds = 0.0
        self.most_at_once = 0
        self._at_once = 0

    async def publish(
        self, trace_id: TraceId, observation_id: ObservationId, files: Sequence[AttachedFile]
    ) -> tuple[str, ...] | Retry | Refused | StorageAway:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(self.seconds)
        self._at_once -= 1
        del observation_id
        if self.trouble is not None:
            return self.trouble
        references = tuple(f"memory:{file.path}" for file in files if file.path)
        self.published.append((trace_id, references))
        return references
