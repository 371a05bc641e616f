"""A moment as people and programs read it: ISO 8601 in UTC, with `Z`."""

from datetime import UTC, datetime


def describe_moment(moment: datetime) -> str:
    """A moment in whole seconds; one without an offset is in UTC, as the driver gives it."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat(timespec="seconds").replace("+00:00", "Z")


def describe_seconds(seconds: int) -> str:
    """Seconds since 1970, as cluster times are kept."""
    return describe_moment(datetime.fromtimestamp(seconds, UTC))
