"""Into how many shards the state is divided."""

from dataclasses import dataclass

from tailer.core.stream.shard import Shard


@dataclass(frozen=True, slots=True)
class Layout:
    """The division that is in force. `began_seconds` is the cluster time from which a shard without a position of its
    own begins; None where each stream begins when it is opened, as it does without a division."""

    total: int = 1
    began_seconds: int | None = None

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of them."""
        return Shard(0, self.total).all()
