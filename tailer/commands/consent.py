"""Asks a person for confirmation before a change that cannot be undone."""

import asyncio
import sys

from tailer.errors import SettingsError


async def ask() -> bool:
    """Whether the person at the terminal agrees; raises SettingsError if no person can be asked."""
    if not sys.stdin.isatty():
        raise SettingsError(
            operation="asking for consent",
            subject="standard input",
            hint="this is not a terminal, so no one can answer: give --yes if this is what you want",
        )
    answer = await asyncio.to_thread(input, "Go on? [y/N] ")
    return answer.strip().lower() in {"y", "yes"}
