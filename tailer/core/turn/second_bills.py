"""Ledger rows that charge a call a second time.

LibreChat 0.7.7 charges a call of an agent that read or wrote the cache twice: with a structured prompt and its
completion, and then as if there were no cache, with a plain prompt of the same input and another completion.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from tailer.core.librechat.transactions import Transaction

_NONE: Final[frozenset[int]] = frozenset()
_Group = tuple[str | None, str]
"""Model and context."""


def find_second_bills(rows: Sequence[Transaction]) -> frozenset[int]:
    """The places of the rows of a turn that charge again what other rows charge. Rows that name a message never do."""
    if rows[0].message_id is not None or all(row.input_tokens is None for row in rows):
        return _NONE
    plain: dict[tuple[_Group, int], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.token_type == "prompt" and row.input_tokens is None:
            plain[(row.model, row.context), row.tokens].append(place)
    found: set[int] = set()
    repeated: Counter[_Group] = Counter()
    for row in rows:
        group = (row.model, row.context)
        again = [] if row.input_tokens is None else plain.get((group, row.input_tokens), [])
        if again:
            found.add(again.pop())
            repeated[group] += 1
    for group, count in repeated.items():
        found.update(_find_repeated(rows, group, count))
    return frozenset(found)


def _find_repeated(rows: Sequence[Transaction], group: _Group, count: int) -> Sequence[int]:
    """The last places of so many completions that tell as many tokens as others do."""
    completions = [
        place
        for place, row in enumerate(rows)
        if row.token_type == "completion" and (row.model, row.context) == group
    ]
    left = Counter(rows[place].tokens for place in completions)
    found: list[int] = []
    for place in reversed(completions):
        if len(found) < count and left[rows[place].tokens] > 1:
            left[rows[place].tokens] -= 1
            found.append(place)
    return found
