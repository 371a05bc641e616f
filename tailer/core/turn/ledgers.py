"""Whose turn the entries of LibreChat's ledger belong to, where ids alone do not tell."""

from tailer.core.librechat.transactions import Transaction


def entries_of_user(user_id: str | None, entries: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
    """The entries that name a turn's message, without those of another user, who has a message of the same id
    (`transactions.user`, `messages.user`); all of them where none is of the turn's user."""
    if all(entry.user_id == user_id for entry in entries):
        return entries
    return tuple(entry for entry in entries if entry.user_id == user_id) or entries
