"""Which instance works on which conversation, where several share a database's work.

A conversation belongs to one of 256 buckets, and a bucket to one shard. LibreChat makes conversation ids as random
UUIDs: their last two digits are the bucket, so that the server can leave out the events of other shards by a regular
expression, on every version. Any other id is hashed.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

MOST_SHARDS: Final = 64
"""Each has four of the buckets at least."""
_BUCKETS: Final = 256
_RANDOM_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{10}"
_BUCKET_OF_UUID: Final = re.compile(f"{_RANDOM_UUID}([0-9a-f]{{2}})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One share of the conversations: number `index`, counted from 0, of `total`."""

    index: int = 0
    total: int = 1

    def __str__(self) -> str:
        """The name in the state and in messages, such as `0of4`."""
        return f"{self.index}of{self.total}"

    @property
    def is_whole(self) -> bool:
        """Whether there is no other shard."""
        return self.total == 1

    def owns(self, conversation_id: str | None) -> bool:
        """Whether a conversation is this shard's; what belongs to none is the first shard's."""
        return self.total == 1 or _bucket(conversation_id) % self.total == self.index

    def all(self) -> "tuple[Shard, ...]":
        """All shards of the same layout."""
        return tuple(Shard(index, self.total) for index in range(self.total))

    def foreign_ids(self) -> str:
        r"""A regular expression of PCRE for ids of other shards' conversations, as far as it can tell from the id.

        It ends with `\z`, because `$` would also match before a last line break.
        """
        endings = []
        for first in range(16):
            second = "".join(
                f"{digit:x}" for digit in range(16) if (first * 16 + digit) % self.total != self.index
            )
            if second:
                endings.append(f"{first:x}[{second}]")
        return rf"^{_RANDOM_UUID}(?:{'|'.join(endings)})\z"


WHOLE: Final = Shard()
"""One instance does everything."""


def _bucket(conversation_id: str | None) -> int:
    if not conversation_id:
        return 0
    found = _BUCKET_OF_UUID.fullmatch(conversation_id)
    if found is not None:
        return int(found[1], 16)
    # A lone surrogate is legal in a stored string.
    return sha256(b"shard:" + conversation_id.encode("utf-8", "surrogatepass")).digest()[0]
