"""Whether the database that is assumed, because nobody names one, is LibreChat's.

Without a database in the URI, LibreChat's own driver (mongoose) takes `test`. The tailer assumes the name that stands
in LibreChat's compose and Helm files, and would follow an empty database for ever.
"""

from contextlib import suppress
from typing import Any, Final

from pymongo.errors import OperationFailure

from tailer.errors import SourceError
from tailer.mongo.connection import Database
from tailer.mongo.failures import explained

_DRIVERS_CHOICE: Final = "test"
_IDS: Final = ("messageId", "conversationId")


async def refuse_wrong_guess(database: Database) -> None:
    """Raise SourceError where the assumed database holds no message, and `test` holds LibreChat's.

    What may not be read holds nothing.
    """
    if await _find_last(database) is not None:
        return
    other = database.client.get_database(_DRIVERS_CHOICE, codec_options=database.codec_options)
    found = await _find_last(other)
    if found is not None and all(isinstance(found.get(name), str) for name in _IDS):
        raise SourceError(
            operation="choosing LibreChat's database",
            subject=f"{database.name}, which is assumed because the MongoDB URI names none, and has no messages",
            hint=f"LibreChat's messages are in {_DRIVERS_CHOICE}, which its driver takes without a name: put "
            f"/{_DRIVERS_CHOICE} into the path of TAILER_MONGO_URI, or set TAILER_MONGO_DATABASE={_DRIVERS_CHOICE}. If "
            f"{database.name} is right, set TAILER_MONGO_DATABASE={database.name}",
        )


async def _find_last(database: Database) -> dict[str, Any] | None:
    with explained(f"{database.name}.messages"), suppress(OperationFailure):
        found: dict[str, Any] | None = await database["messages"].find_one(
            {}, dict.fromkeys(_IDS, 1), sort=[("_id", -1)]
        )
        return found
    return None
