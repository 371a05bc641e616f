"""A destination as the lanes see it: what it is called, what it gets of a turn, and what it has of it already."""

from dataclasses import dataclass

from tailer.core.trace.export import ExportOptions
from tailer.events import Emit
from tailer.flow.in_flight import InFlight
from tailer.flow.ports import FollowupSink
from tailer.flow.sending.debts import Debts
from tailer.flow.sending.delivery import Delivery
from tailer.flow.sending.destination_health import DestinationHealth
from tailer.flow.sending.outgoing import Packing
from tailer.flow.sending.presence import Presence
from tailer.flow.stores import DestinationStore


@dataclass(frozen=True, slots=True, eq=False)
class Destination:
    """One destination. `options` say what it gets of a turn; `state` is what is kept for it alone;
    events that `emit` reports carry its name, where there are several."""

    name: str
    state: DestinationStore
    options: ExportOptions
    packing: Packing
    in_flight: InFlight
    delivery: Delivery
    health: DestinationHealth
    presence: Presence
    debts: Debts
    followups: FollowupSink
    emit: Emit
