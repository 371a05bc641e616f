"""Whose turn the entries of LibreChat's ledger belong to, where ids alone do not tell."""

from collections.abc import Collection

from tailer.core.librechat.transactions import Transaction


def entries_of_user(user_id: str | None, entries: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
    """The entries that name a turn's message, without those of another user, who has a message of the same id
    (`transactions.user`, `messages.user`); all of them where none is of the turn's user."""
    if all(entry.user_id == user_id for entry in entries):
        return entries
    return tuple(entry for entry in entries if entry.user_id == user_id) or entries


def entries_beside(counted: Collection[str], entries: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
    """The entries that name the message of a turn whose row is gone: those of the user whose entries the turn counts
    (their `_id`s); where it counts none, all of them if they are of one user."""
    users = {entry.user_id for entry in entries if entry.key in counted} or {
        entry.user_id for entry in entries
    }
    return tuple(entry for entry in entries if entry.user_id in users) if len(users) == 1 else ()
