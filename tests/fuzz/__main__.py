"""`python -m tests.fuzz`: hostile rows through everything that is done with a row, with the worst time and the memory.

Each row is stored as BSON with broken UTF-8 among it, read as the daemon reads it, judged, built and encoded. A row
that raises becomes a dead letter in the daemon; here it is counted and named, and fails the run.
"""

import argparse
import resource
import sys
import time
from collections import Counter
from random import Random
from typing import Any

import bson

from tailer.core.librechat.messages import MalformedDocument, read_message
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import ContentChoice, Policies
from tailer.core.policy.users import UserIdChoice, UserNaming
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.export import Exported, ExportOptions, export_turn
from tailer.core.trace.otlp import SpanContext, encode_trace
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord, Wait
from tailer.mongo.collections import Collections
from tailer.mongo.document_keys import TOLERANT, to_key
from tests.fuzz.rows import make_rows

_BROKEN = (b"plain", b"pl\xffin")
"""Same length: bytes that are no UTF-8 in place of a word."""
_LARGEST_DOCUMENT = 16 * 1024 * 1024


class Course:
    """What a row goes through, for one choice of content."""

    def __init__(self, content: ContentChoice) -> None:
        rules = compile_rules((), ())
        self._options = ExportOptions(
            bounds=Bounds(),
            tags=(),
            tag_facts=(),
            sample_rate=1.0,
            policies=Policies(content=content),
            naming=UserNaming(UserIdChoice.ID, b""),
            mask=lambda: Masker(rules, bytes(32)),
        )
        self._context = SpanContext("fuzz")
        self._rows = Collections(None, lambda _: None)  # type: ignore[arg-type] # only reads rows here

    def run(self, question: bytes, response: bytes) -> tuple[str, int]:
        """What became of a turn, and the bytes of its trace."""
        documents = [bson.decode(raw, TOLERANT) for raw in (question, response)]
        row = self._rows.read_row(documents[1])
        if row is None:
            return "no id", 0
        try:
            messages = [read_message(to_key(document["_id"]), document) for document in documents]
        except MalformedDocument:
            return "malformed", 0
        return self._export(row, TurnRecord(response=messages[1], question=messages[0]))

    def _export(self, row: Row, record: TurnRecord) -> tuple[str, int]:
        made = export_turn(row, record, self._options, deadline_passed=False)
        if isinstance(made, Exported):
            return made.outcome.value, sum(len(encode_trace(trace, self._context)) for trace in made.traces)
        return f"waits for {made.value}" if isinstance(made, Wait) else made, 0


def main() -> int:
    """The command line; 1 when a row raised."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--largest", type=int, default=20_000, help="elements of the largest content")
    options = parser.parse_args()
    dice = Random(options.seed)
    courses = {choice: Course(choice) for choice in ContentChoice}
    outcomes: Counter[str] = Counter()
    worst: dict[ContentChoice, tuple[float, int]] = dict.fromkeys(courses, (0.0, 0))
    failures: list[str] = []
    largest_bytes = 0
    for number in range(options.documents // 2):
        raw = [_store(row) for row in make_rows(dice, largest=options.largest)]
        if max(map(len, raw)) > _LARGEST_DOCUMENT:
            outcomes["larger than a document can be"] += 1
            continue
        for choice, course in courses.items():
            began = time.perf_counter()
            try:
                outcome, size = course.run(raw[0], raw[1])
            except Exception as error:  # noqa: BLE001 - what this program looks for
                failures.append(
                    f"pair {number} of seed {options.seed}: {type(error).__name__}: {error}"[:300]
                )
                continue
            outcomes[outcome] += choice is ContentChoice.FULL
            largest_bytes = max(largest_bytes, size)
            taken = time.perf_counter() - began
            worst[choice] = max(worst[choice], (taken, sum(map(len, raw))))
    _report(options, outcomes, worst, failures, largest_bytes)
    return 1 if failures else 0


def _store(row: dict[str, Any]) -> bytes:
    raw = bson.encode(row)
    return raw.replace(*_BROKEN) if b"plain" in raw and len(raw) % 7 == 0 else raw


def _report(
    options: argparse.Namespace,
    outcomes: Counter[str],
    worst: dict[ContentChoice, tuple[float, int]],
    failures: list[str],
    largest_bytes: int,
) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{options.documents} documents, seed {options.seed}; outcomes: {dict(outcomes)}")
    for choice, (seconds, size) in worst.items():
        print(f"content {choice.value}: worst turn {seconds * 1000:.0f} ms, of {size / 1e6:.2f} MB stored")
    print(
        f"largest trace {largest_bytes / 1e6:.2f} MB, peak memory {peak / 1e6:.0f} MB, {len(failures)} raised"
    )
    for failure in failures[:20]:
        print(f"  {failure}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
