"""Times on the command line."""

import argparse
from datetime import datetime


def read_moment(text: str) -> datetime:
    """A time with its zone, as an option; raises ArgumentTypeError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("give a time such as 2026-01-31T08:00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(
            "whose time is it? Add Z for UTC, or an offset such as +02:00"
        ) from None
    return moment
