"""The sink for a file: one JSON line per trace, for people without Langfuse and for the demo.

A batch counts as delivered once it is on disk. A line that a crash truncated is removed at the next start.
"""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tailer.core.identity import ObservationId, TraceId
from tailer.core.json_text import encode_json
from tailer.core.trace.followup import Score
from tailer.core.trace.observations import Observation, Trace
from tailer.errors import DestinationError
from tailer.flow.ports import UNCONDITIONAL, Permit
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Found, LookupAnswer, Retry, Unanswered

_TAIL_BYTES = 65_536
_REMEDY = "set TAILER_FILE_PATH to a file in a directory that this user may write"


class TraceFile:
    """A `Sink` that appends to one file; `remedy` is what an operator can do where it cannot be written."""

    def __init__(self, path: Path, permit: Permit = UNCONDITIONAL, *, remedy: str = _REMEDY) -> None:
        self._path = path
        self._remedy = remedy
        self._permit = permit
        self._write = asyncio.Lock()
        self._begun: frozenset[ObservationId] = frozenset()

    @property
    def name(self) -> str:
        """The path of the file."""
        return str(self._path)

    async def check(self) -> None:
        """Check that the file can be written, and leave it as it is; raises DestinationError."""
        await self._open(self._touch)

    async def prepare(self) -> None:
        """Remove a truncated line; no other process may be writing. Raises DestinationError."""
        await self._open(self._mend)

    async def _open(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except OSError as error:
            raise DestinationError(
                operation="opening the trace file",
                subject=str(self._path),
                hint=f"{error.strerror}; {self._remedy}",
            ) from error

    def encode(self, trace: Trace) -> bytes:
        """One line: the trace's own fields and its observations."""
        line = {
            "id": trace.id,
            "name": trace.name,
            "session_id": trace.session_id,
            "user_id": trace.user_id,
            "tags": trace.tags,
            "metadata": trace.metadata,
            "observations": [_describe(observation) for observation in trace.observations],
        }
        return encode_json(line).encode("utf-8", "replace") + b"\n"

    def frame(self, chunks: Sequence[bytes]) -> bytes:
        """The lines, joined."""
        return b"".join(chunks)

    def unframe(self, payload: bytes, chunk_bytes: Sequence[int]) -> Sequence[bytes]:
        """The lines of a payload."""
        chunks, start = [], 0
        for size in chunk_bytes:
            chunks.append(payload[start : start + size])
            start += size
        return chunks

    def shrink(self, chunk: bytes) -> bytes | None:  # noqa: ARG002 - the port's signature
        """No line is too long for a file."""
        return None

    async def deliver(self, payload: bytes) -> DeliveryOutcome:
        """Append and sync. A full disk or a lost mount is a reason to try again."""
        async with self._write:
            await self._permit.wait()
            try:
                await asyncio.to_thread(self._append, payload)
            except OSError as error:
                return Retry(f"file: {error.strerror}")
        return Delivered()

    async def find(self, probes: Sequence[Probe]) -> LookupAnswer:
        """Search the file; only batches of an earlier run are looked up."""
        wanted = frozenset(probe.observation_id for probe in probes)
        try:
            found = await asyncio.to_thread(self._search, wanted)
        except OSError as error:
            return Unanswered(f"file: {error.strerror}")
        if found == wanted:
            return Found(found)
        # The beginning of a batch whose write was cut by a crash. It does not count until the rest is there.
        self._begun |= found
        return Found(frozenset())

    async def put_score(self, score: Score) -> DeliveryOutcome:
        """Write a line for the score; the last line of an id counts."""
        return await self._append_entry({"score": asdict(score)})

    async def delete_score(self, score_id: str) -> DeliveryOutcome:
        """Write a line that withdraws the score."""
        return await self._append_entry({"score_deleted": score_id})

    async def delete_traces(self, trace_ids: Sequence[TraceId]) -> DeliveryOutcome:
        """Write a line that withdraws the traces; earlier lines are not rewritten."""
        return await self._append_entry({"traces_deleted": list(trace_ids)})

    async def _append_entry(self, entry: dict[str, object]) -> DeliveryOutcome:
        return await self.deliver(encode_json(entry).encode("utf-8", "replace") + b"\n")

    def _append(self, payload: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            try:
                left = memoryview(self._without_written(payload))
                while left:
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            except OSError:
                # Half a batch must not stay, because the retry writes all of it again.
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _without_written(self, payload: bytes) -> bytes:
        """The payload, without the lines that are already there if a crash cut its write."""
        if not any(observation_id.encode() in payload for observation_id in self._begun):
            return payload
        lines = payload.splitlines(keepends=True)
        with self._path.open("rb") as written:
            present = frozenset(lines).intersection(written)
        return b"".join(line for line in lines if line not in present)

    def _touch(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))

    def _mend(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            while size:
                start = max(0, size - _TAIL_BYTES)
                tail = os.pread(descriptor, size - start, start)
                end = tail.rfind(b"\n") + 1
                if end or not start:
                    size = start + end
                    break
                size = start
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def _search(self, wanted: frozenset[ObservationId]) -> frozenset[ObservationId]:
        found: set[ObservationId] = set()
        with self._path.open("rb") as lines:
            for line in lines:
                try:
                    ids = {str(observation["id"]) for observation in json.loads(line)["observations"]}
                except (ValueError, LookupError, TypeError):
                    # A line of a score or of another program: it is not a trace of ours.
                    continue
                found.update(wanted & {ObservationId(found_id) for found_id in ids})
        return frozenset(found)


def _describe(observation: Observation) -> dict[str, object]:
    return {name: value for name, value in asdict(observation).items() if value is not None}
