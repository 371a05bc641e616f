"""This machine's clock against that of MongoDB's primary."""

import time
from datetime import UTC
from typing import Any

from tailer.mongo.connection import Database


async def ask_hello(database: Database) -> tuple[dict[str, Any], float]:
    """The answer of `hello`, and how many seconds this machine's clock is ahead of the one in it.

    The server's clock was read somewhere within the round trip: half of that is uncertain.
    """
    asked, began = time.time(), time.monotonic()
    hello: dict[str, Any] = await database.command("hello")
    middle = asked + (time.monotonic() - began) / 2
    # The driver gives UTC without saying so.
    return hello, middle - hello["localTime"].replace(tzinfo=UTC).timestamp()
