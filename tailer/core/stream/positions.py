"""A place in a change stream, as it is read, kept and compared."""

from typing import Final

from tailer.core.light_dataclass import light_dataclass

_TIMESTAMP: Final = "82"
"""A resume token of a change begins with the type of a timestamp, then its seconds and its number within them."""


@light_dataclass(frozen=True, slots=True)
class StreamPosition:
    """A resume token (the hex `_data`, always resumed with `startAfter`) and the server's time of it in seconds.

    Without a token it is a moment: the stream begins with the first change of that second.
    """

    token: str | None
    cluster_seconds: int

    @property
    def moment(self) -> str:
        """The server's time of it, to be compared: seconds, then the number within the second, as hex digits."""
        if self.token is not None and self.token.startswith(_TIMESTAMP):
            return self.token[2:18]
        return f"{self.cluster_seconds:08x}{1:08x}".upper()


def token_seconds(token: str) -> int | None:
    """The seconds of the cluster time that a resume token begins with; None where it begins with something else."""
    try:
        return int(token[2:10], 16) if token.startswith(_TIMESTAMP) else None
    except ValueError:
        return None
