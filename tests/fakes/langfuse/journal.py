"""A file of everything that was accepted, so that a fake that is killed still has it after its next start.

Each record is one JSON line followed by the raw body. Records are handed to the operating system before the
request is answered; a record cut short by a kill was never acknowledged and is dropped on reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted request: `kind` names the route, `content_type` and `encoding` how to read `body`."""

    kind: str
    received_at: float
    content_type: str
    encoding: str | None
    body: bytes


class Journal:
    """An append-only file of records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._cut_torn_tail()
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, record: Record) -> None:
        """Write a record in one call."""
        header = {
            "kind": record.kind,
            "receivedAt": record.received_at,
            "contentType": record.content_type,
            "encoding": record.encoding,
            "bytes": len(record.body),
        }
        self._file.write(json.dumps(header).encode() + b"\n" + record.body + b"\n")

    def clear(self) -> None:
        """Forget everything."""
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def records(self) -> Iterator[Record]:
        """All whole records, oldest first."""
        for record, _ in self._whole_records():
            yield record

    def _cut_torn_tail(self) -> None:
        if not self._path.exists():
            return
        end = max((end for _, end in self._whole_records()), default=0)
        with self._path.open("r+b") as file:
            file.truncate(end)

    def _whole_records(self) -> Iterator[tuple[Record, int]]:
        with self._path.open("rb") as file:
            while line := file.readline():
                if not line.endswith(b"\n"):
                    return
                header = json.loads(line)
                body = file.read(header["bytes"] + 1)
                if len(body) != header["bytes"] + 1:
                    return
                record = Record(
                    header["kind"], header["receivedAt"], header["contentType"], header["encoding"], body[:-1]
                )
                yield record, file.tell()
