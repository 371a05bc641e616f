"""Asks a person before something is changed that cannot be taken back."""

import asyncio
import sys

from tailer.errors import SettingsError


async def ask() -> bool:
    """Whether the person at the terminal agrees; raises SettingsError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise SettingsError(
            operation="asking for consent",
            subject="standard input",
            hint="it is no terminal, so nobody can answer: give --yes if this is what you want",
        )
    answer = await asyncio.to_thread(input, "Go on? [y/N] ")
    return answer.strip().lower() in {"y", "yes"}
