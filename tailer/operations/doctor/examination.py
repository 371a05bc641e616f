"""The whole examination, in the order in which things depend on each other."""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Final, TypeVar

from tailer.core.policy.policies import NativePolicy
from tailer.daemon.options import needs_groups, needs_users
from tailer.errors import SourceError
from tailer.mongo.connection import tolerant_database
from tailer.mongo.state.positions import StoredCheckpoint
from tailer.operations.doctor.addresses import check_addresses, is_in_container
from tailer.operations.doctor.api_spending import check_api_spending
from tailer.operations.doctor.destinations import check_destination, check_routes
from tailer.operations.doctor.double_tracing import check_double_tracing
from tailer.operations.doctor.findings import Finding, failed, passed, skipped
from tailer.operations.doctor.http_port import check_port
from tailer.operations.doctor.left_out import check_left_out
from tailer.operations.doctor.librechat import (
    check_librechats_clock,
    check_oplog,
    check_privileges,
    check_rows,
    check_server,
    check_streams,
)
from tailer.operations.doctor.state import check_state
from tailer.operations.opening import connect_source, connect_state
from tailer.settings import Settings

_LIMIT: Final = timedelta(seconds=30)
_Result = TypeVar("_Result")


async def examine(settings: Settings, *, downtime: timedelta) -> list[Finding]:
    """Every check; `downtime` is how long the tailer may be away without a gap. Safe beside a running daemon."""
    findings = [passed("settings", f"good; {len(settings.warnings)} warnings in `tailer check-config`")]
    findings += await _examine_mongo(settings, downtime)
    asked = [
        _within(check_destination(settings, each), [_too_slow(f"destination {each.name}")])
        for each in settings.destinations
    ]
    findings += [finding for found in await asyncio.gather(*asked) for finding in found]
    findings += check_routes(settings)
    findings += check_addresses(settings, findings, in_container=is_in_container())
    findings.append(await asyncio.to_thread(check_port, settings))
    return findings


async def _examine_mongo(settings: Settings, downtime: timedelta) -> list[Finding]:
    try:
        return await _ask_mongo(settings, downtime)
    except SourceError as error:
        # The driver refuses the URI, or a file that it names.
        return [
            failed("MongoDB reachable", f"{error.operation}: {error.subject}", error.hint),
            skipped("everything else in MongoDB", "see the failure above"),
        ]


async def _ask_mongo(settings: Settings, downtime: timedelta) -> list[Finding]:
    with ExitStack() as stack:
        source = connect_source(settings, command="doctor")
        stack.callback(source.close)
        state = connect_state(settings, command="doctor")
        stack.callback(state.close)
        database = tolerant_database(source, settings.mongo_database)
        server, findings = await _within(check_server(database), (None, [_too_slow("MongoDB reachable")]))
        if server is None or (server.replica_set is None and not server.is_sharded):
            return [*findings, skipped("everything else in MongoDB", "see the failure above")]
        findings += await _within(
            check_privileges(database, with_users=needs_users(settings), with_groups=needs_groups(settings)),
            [_too_slow("privileges on LibreChat")],
        )
        nothing: Sequence[StoredCheckpoint] = ()
        checkpoints, found = await _within(
            check_state(state, database, settings), (nothing, [_too_slow("state database")])
        )
        streams = [_too_slow("streams")]
        findings += await _within(check_streams(database, settings.streams, checkpoints), streams)
        findings.append(
            await _within(check_oplog(database, checkpoints, downtime), _too_slow("oplog window"))
        )
        findings.append(
            await _within(
                check_librechats_clock(database, server.ahead_seconds), _too_slow("LibreChat's clock")
            )
        )
        skips = settings.native is NativePolicy.SKIP
        guessed = settings.assumes_database
        findings += await _within(
            check_rows(database, native_is_skipped=skips, is_guessed=guessed), [_too_slow("messages")]
        )
        findings.append(await _within(check_left_out(database, settings), _too_slow("left out")))
        findings.append(
            await _within(check_api_spending(database, settings), _too_slow("spending over the API"))
        )
        findings += await _within(check_double_tracing(database, settings), [_too_slow("no second tracing")])
        return [*findings, *found]


async def _within(check: Awaitable[_Result], otherwise: _Result) -> _Result:
    try:
        async with asyncio.timeout(_LIMIT.total_seconds()):
            return await check
    except TimeoutError:
        return otherwise


def _too_slow(check: str) -> Finding:
    return failed(
        check,
        f"no answer within {_LIMIT.total_seconds():g} s",
        "see the server's load and log, and the network between here and there",
    )
