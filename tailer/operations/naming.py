"""The destination that a command was asked for, by name."""

from collections.abc import Sequence

from tailer.errors import RequestRefused
from tailer.settings import Settings
from tailer.settings.destinations import DestinationSettings


def choose_destinations(settings: Settings, name: str | None) -> Sequence[DestinationSettings]:
    """The destination with a name, all of them without one; raises RequestRefused if there is none."""
    if name is None:
        return settings.destinations
    found = [destination for destination in settings.destinations if destination.name == name]
    if not found:
        known = ", ".join(destination.name for destination in settings.destinations)
        raise RequestRefused(
            operation="choosing a destination",
            subject=f"--destination {name}",
            hint=f"the settings name {known}; add it to the file of TAILER_DESTINATIONS, or give one of these",
        )
    return found
