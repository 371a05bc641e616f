"""Which destinations an open entry concerns, where it does not concern all of them."""

from tailer.core.stream.entries import EntryKey


class Scopes:
    """The scopes of open entries. One without a scope concerns every destination."""

    def __init__(self) -> None:
        self._scopes: dict[EntryKey, frozenset[str]] = {}

    def of(self, key: EntryKey) -> frozenset[str] | None:
        """The destinations that an entry concerns, None for all of them."""
        return self._scopes.get(key)

    def forget(self, key: EntryKey) -> None:
        """Forget an entry that is closed, or let one that is open concern every destination."""
        if self._scopes:
            self._scopes.pop(key, None)

    def widen(self, key: EntryKey, only: str | None, *, is_open: bool) -> bool:
        """Let an entry concern one destination, or all of them with None, and whatever it concerned before while it is
        open. Returns whether an open entry concerns more than before."""
        scope = self._scopes.get(key)
        if not is_open:
            if only is not None:
                self._scopes[key] = frozenset({only})
            return False
        if scope is None or only in scope:
            return False
        if only is None:
            del self._scopes[key]
        else:
            self._scopes[key] = scope | {only}
        return True
