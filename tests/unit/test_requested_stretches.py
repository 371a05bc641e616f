"""The stretch of time that a backfill or a comparison is asked to walk: what is refused, and what is stored."""

from datetime import UTC, datetime

import pytest

from tailer.core.identity import LAST_SECOND
from tailer.errors import RequestRefused
from tailer.operations.backfill import Request, make_job

NOW = datetime(2026, 11, 27, tzinfo=UTC)
NOW_SECONDS = int(NOW.timestamp())
LATER = datetime(2026, 11, 28, tzinfo=UTC)
EARLIER = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until", "reason"),
    [
        (LATER, None, "it lies in the future"),
        (LATER, datetime(2030, 1, 1, tzinfo=UTC), "it lies in the future"),
        (EARLIER, datetime(2026, 11, 25, tzinfo=UTC), "it comes after --until"),
    ],
)
def test_a_stretch_in_which_no_row_can_lie_is_refused_whatever_asks_for_it(
    since: datetime, until: datetime | None, reason: str
) -> None:
    """A comparison that finds no turns there would say that all is well."""
    with pytest.raises(RequestRefused, match=reason) as raised:
        make_job(Request(since, until), NOW_SECONDS, operation="comparing with Langfuse")

    assert raised.value.operation == "comparing with Langfuse"


def test_an_end_beyond_what_an_object_id_can_hold_is_stored_as_the_last_second() -> None:
    """7 February 2106: a later time has no `_id`."""
    job = make_job(Request(EARLIER, datetime(2200, 1, 1, tzinfo=UTC)), NOW_SECONDS, operation="asking")

    assert job.until_seconds == LAST_SECOND
