"""Which destination a stored document belongs to.

The documents of `default`, the destination that the environment alone names, have no mark: they are those of the
releases that knew one destination. Those of another one have its name before their `_id` and in a field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tailer.settings.destinations import DEFAULT_NAME


@dataclass(frozen=True, slots=True)
class Belonging:
    """The documents of one destination. `of` is its name."""

    of: str = DEFAULT_NAME

    @property
    def query(self) -> dict[str, Any]:
        """Finds the documents of this destination among those of all; a document without the field is of `default`."""
        return {"destination": None if self.of == DEFAULT_NAME else self.of}

    @property
    def marks(self) -> dict[str, Any]:
        """What `query` finds a document by."""
        return {} if self.of == DEFAULT_NAME else {"destination": self.of}

    def id_of(self, record_id: str) -> str:
        """The `_id` of the document about a record."""
        return record_id if self.of == DEFAULT_NAME else f"{self.of}/{record_id}"

    def among(self, record_ids: Sequence[str]) -> dict[str, Any]:
        """Finds the documents about records, by their `_id`s."""
        return {"_id": {"$in": [self.id_of(record_id) for record_id in record_ids]}}

    def record_of(self, document_id: object) -> str:
        """The record that a document with this `_id` is about."""
        return str(document_id) if self.of == DEFAULT_NAME else str(document_id).removeprefix(f"{self.of}/")
