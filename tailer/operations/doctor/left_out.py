"""The check of what the daemon leaves out: copies and temporary chats are the exception in a LibreChat."""

from collections import Counter
from typing import Final

from tailer.core.policy.policies import CopyPolicy, TemporaryPolicy
from tailer.core.turn.copies import is_copy
from tailer.core.turn.turns import TurnRecord
from tailer.mongo.connection import Database
from tailer.mongo.examination import ExaminationFailed, read_last_answers
from tailer.operations.doctor.findings import Finding, failed, passed, skipped, warned
from tailer.settings import Settings

_ANSWERS: Final = 50
_LEAST: Final = 10
_SHARE: Final = 0.9
_REMEDIES: Final = {
    "temporary": "LibreChat's retention mode or its default makes every chat temporary: decide with TAILER_TEMPORARY "
    "(skip, metadata or full) what becomes of them",
    "copies": "compare the clocks of LibreChat and MongoDB; where the chats really are imports, TAILER_COPIES decides",
}


async def check_left_out(database: Database, settings: Settings) -> Finding:
    """Whether nearly all of the last answers would be left out, read and judged as the daemon does."""
    try:
        records = await read_last_answers(database, _ANSWERS)
    except ExaminationFailed as error:
        return failed("left out", error.failure, error.hint)
    if not records:
        return skipped("left out", "there are no answers yet")
    counts = Counter(word for record in records if (word := _reason(record, settings)) is not None)
    for word, number in counts.items():
        if len(records) >= _LEAST and number >= _SHARE * len(records):
            seen = f"{number} of the last {len(records)} answers are {word} and left out"
            return warned("left out", seen, _REMEDIES[word])
    seen = ", ".join(f"{number} {word}" for word, number in sorted(counts.items())) or "none"
    return passed("left out", f"of the last {len(records)} answers: {seen}")


def _reason(record: TurnRecord, settings: Settings) -> str | None:
    own = record.response
    if own is None:
        return None
    if own.temporary:
        return "temporary" if settings.temporary is TemporaryPolicy.SKIP else None
    if is_copy(own, record.surroundings):
        return "copies" if settings.copies is CopyPolicy.SKIP else None
    return None
