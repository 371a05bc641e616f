"""A place in a change stream, as it is read, kept and compared."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """A resume token (the hex `_data`, always resumed with `startAfter`) and the server's time of it in seconds.

    Without a token it is a moment: the stream begins with the first change of that second.
    """

    token: str | None
    cluster_seconds: int


def token_seconds(token: str) -> int | None:
    """The cluster time inside a resume token: byte 0 is the type of a timestamp, bytes 1 to 4 are its seconds."""
    try:
        return int(token[2:10], 16) if token.startswith("82") else None
    except ValueError:
        return None
