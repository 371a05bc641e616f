"""The connections of the HTTP port: no more at once than a few scrapers, probes and browsers need.

Whoever reaches the port may open any number and say nothing. Each takes a descriptor of the process, and without
descriptors nothing can be sent to Langfuse. So beyond the limit the connection that has waited longest makes room.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MOST_CONNECTIONS: Final = 100
"""Far below the 1,024 descriptors that a process has by default."""


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which closes the oldest connection without a request where there are too many."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._opened_seconds = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Take a connection in, and let the one go that has waited longest, if that is one too many."""
        super().connection_made(transport)
        self._opened_seconds = self.loop.time()
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [
                each for each in self.connections if isinstance(each, BoundedProtocol) and each.is_waiting
            ]
            if waiting:
                min(waiting, key=lambda each: each._opened_seconds).transport.abort()  # noqa: SLF001 - of its own class

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered: none came whole, or all of them were answered."""
        # None until a first request, which uvicorn's own annotation does not say.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete
