"""The check whether LibreChat's agents API is used while its spending is not followed."""

from typing import Final

from tailer.mongo.connection import Database
from tailer.mongo.examination import ExaminationFailed, count_last_spending
from tailer.operations.doctor.findings import Finding, passed, skipped, warned
from tailer.settings import Settings

_CHECK: Final = "spending over the API"
_TRANSACTIONS: Final = 200


async def check_api_spending(database: Database, settings: Settings) -> Finding:
    """Whether any of the last transactions belongs to no chat; only their stream reports it."""
    if settings.stream_transactions:
        return passed(_CHECK, "is followed (TAILER_STREAM_TRANSACTIONS)")
    try:
        spent, read = await count_last_spending(database, _TRANSACTIONS)
    except ExaminationFailed as error:
        return skipped(_CHECK, f"transactions cannot be read: {error.failure}")
    if not spent:
        return passed(_CHECK, f"none among the last {read} transactions")
    return warned(
        _CHECK,
        f"{spent} of the last {read} transactions were spent over LibreChat's agents API, and are in no trace",
        "set TAILER_STREAM_TRANSACTIONS=true, and grant changeStream on transactions (deploy/mongodb/README.md)",
    )
