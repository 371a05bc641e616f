"""How a batch fares beside the others: whether the destination, or something before it, refuses this one alone.

A firewall that takes a payload for an attack, or a server that a certain turn breaks, gives the same answer to the same
bytes for ever. Meanwhile the batch holds the position of the streams. What takes the others, and this one never, is not
out of order: then the batch is divided, and in the end one turn is left that cannot be sent.
"""

from typing import Final

from tailer.flow.sending.destination_health import DestinationHealth
from tailer.flow.sending.outcomes import DeliveryOutcome, Refused, RequestResult, Retry, Unknown

TRIES: Final = 12
"""So many take some four minutes. A server that turns every second request away, of whatever content, refuses one
batch so often once in four thousand times."""
_OF_THE_CONTENT: Final = frozenset({RequestResult.RETRY, RequestResult.SERVER_ERROR})
"""What a payload can be the reason of. Rate limits and connections that cannot be opened are not."""


class Ordeal:
    """The tries of one batch at a destination. `suspected`: it is part of one that was refused alone."""

    def __init__(self, health: DestinationHealth, *, suspected: bool = False) -> None:
        self._health = health
        self._accepted_before = health.accepted_batches
        self._others_needed = 1 if suspected else TRIES
        self._tries = 0

    def is_over(self, outcome: DeliveryOutcome) -> bool:
        """Whether it was refused often enough, and enough others were accepted meanwhile; called once for each
        answer."""
        if not may_be_of_the_content(outcome):
            return False
        self._tries += 1
        others = self._health.accepted_batches - self._accepted_before
        return self._tries >= TRIES and others >= self._others_needed


def may_be_of_the_content(outcome: DeliveryOutcome) -> bool:
    """Whether what was sent may be the reason of an answer."""
    if isinstance(outcome, Retry):
        return outcome.result in _OF_THE_CONTENT
    return isinstance(outcome, Refused | Unknown)
