"""What differs between the servers that the fake can stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Langfuse in a mode, as a real one was seen to behave."""

    version: str
    takes_score_lists: bool
    keeps_time_of_single_scores: bool
    reads_pages: bool
    """GET /api/public/v2/observations is there."""
    reads_single: bool
    """GET /api/public/observations/{id} finds something."""
    says_of_pages: tuple[int, str] = (
        404,
        "The observations v2 API is only available in a Langfuse v4 write mode.",
    )
    """What it answers to GET /api/public/v2/observations where that is not there."""


CURRENT = Release("4.59.0", True, True, True, False)
"""What SDK 5 asks for, by its documentation."""
EVENTS_ONLY = Release("4.16.0", False, False, True, False)
"""4.16 as it comes (`LANGFUSE_MIGRATION_V4_WRITE_MODE=events_only`)."""
LEGACY = Release("4.16.0", False, False, False, True)
"""4.16 in the mode of release 3."""
SELF_HOSTED_3 = Release(
    "3.150.0",
    False,
    False,
    False,
    True,
    (501, "v2 APIs are currently in beta and only available on Langfuse Cloud"),
)
"""A late release 3 as it comes (`LANGFUSE_ENABLE_EVENTS_TABLE_V2_APIS` is not set)."""


class ReadLimit:
    """Langfuse Cloud's limit: so many requests a minute to everything but the ingestion. Hobby has 30.

    As there, the last of them is refused already, and the minute begins with its first request.
    """

    def __init__(self, requests_a_minute: int | None, clock: Callable[[], float]) -> None:
        self.requests_a_minute = requests_a_minute
        self._clock = clock
        self._began = -math.inf
        self._seen = 0

    def refuse_for(self) -> int | None:
        """Count a request; the seconds to wait where it is one too many, None where it is not."""
        if self.requests_a_minute is None:
            return None
        now = self._clock()
        if now >= self._began + 60:
            self._began, self._seen = now, 0
        self._seen += 1
        if self._seen < self.requests_a_minute:
            return None
        return math.ceil(self._began + 60 - now)
