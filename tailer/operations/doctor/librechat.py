"""The checks of LibreChat's MongoDB."""

import asyncio
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.errors import SourceError
from tailer.mongo.assumed_database import refuse_wrong_guess
from tailer.mongo.connection import Database, describe_address
from tailer.mongo.examination import (
    ExaminationFailed,
    Server,
    ask_oplog,
    ask_privileges,
    ask_server,
    compare_librechats_clock,
    read_last_rows,
    try_resuming,
)
from tailer.mongo.state.positions import StoredCheckpoint, find_oldest
from tailer.operations.doctor.findings import Finding, failed, passed, skipped, warned
from tailer.operations.doctor.privileges import Rights, judge_reading

_LEAST_VERSION: Final = (4, 4)
_SHOWN_VERSION: Final = "6.0"
_ROWS: Final = 100
_SKEW_SECONDS: Final = 5.0
_YOUNG_SECONDS: Final = 3600
"""In a shorter oplog, a quarter of it is no time at all."""
REPLICA_SET: Final = (
    "make it a replica set of one node, on the same data: in compose with deploy/compose/docker-compose.tailer.yml on top of "
    "LibreChat's file; in Kubernetes with `mongodb.architecture: replicaset` in LibreChat's values (docs/kubernetes.md, step "
    "1, moves the data); elsewhere `mongod --replSet rs0 --bind_ip_all`, then once `rs.initiate({_id: 'rs0', members: [{_id: "
    "0, host: '<the name LibreChat knows it by>:27017'}]})`"
)


async def check_server(database: Database) -> tuple[Server | None, list[Finding]]:
    """Reachable, a replica set, of a release that is known to work; its clock and the names of its members."""
    address = describe_address(database.client)
    try:
        server = await ask_server(database)
    except ExaminationFailed as error:
        return None, [failed("MongoDB reachable", f"{address}: {error.failure}", error.hint)]
    findings = [passed("MongoDB reachable", address), _judge_set(server), _judge_version(server.version)]
    if server.members:
        findings.append(await _check_names(server.members))
    findings.append(_judge_clock(server.ahead_seconds))
    return server, findings


def _judge_set(server: Server) -> Finding:
    if server.replica_set is not None:
        return passed("replica set", f"{server.replica_set}, {len(server.members)} data-bearing members")
    if server.is_sharded:
        return warned("replica set", "a sharded cluster, which was never tried", "try it on a copy first")
    return failed("replica set", "a standalone mongod, which has no change streams", REPLICA_SET)


def _judge_version(version: str) -> Finding:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _LEAST_VERSION:
        return failed("MongoDB version", version, "upgrade MongoDB to 4.4 or later; LibreChat brings 8.0")
    return passed("MongoDB version", f"{version} (tests run on {_SHOWN_VERSION})")


async def _check_names(members: Sequence[str]) -> Finding:
    unknown = []
    for member in members:
        host = member.rpartition(":")[0].strip("[]")
        try:
            await asyncio.get_running_loop().getaddrinfo(host, None)
        except socket.gaierror:
            unknown.append(host)
    if unknown:
        return failed(
            "member names",
            f"cannot be resolved from here: {', '.join(unknown)}",
            "the driver goes to the names that the set has for its members: run the tailer where they resolve (the same "
            "compose network or cluster), or rename them with rs.reconfig(); for a look from outside put "
            "directConnection=true into the URI",
        )
    return passed("member names", f"resolve from here: {', '.join(members)}")


def _judge_clock(ahead_seconds: float) -> Finding:
    seen = f"this machine is {ahead_seconds:+.2f} s against MongoDB"
    if abs(ahead_seconds) > _SKEW_SECONDS:
        return warned(
            "clocks", seen, "let NTP run on both machines; latencies in the metrics are wrong by so much"
        )
    return passed("clocks", seen)


async def check_librechats_clock(database: Database, ahead_seconds: float) -> Finding:
    """LibreChat's clock compared with the other two; `ahead_seconds` compares this machine's with MongoDB's."""
    check = "LibreChat's clock"
    try:
        librechat = await compare_librechats_clock(database)
    except ExaminationFailed as error:
        return failed(check, error.failure, error.hint)
    if librechat is None:
        return skipped(check, "no message tells it yet")
    seen = f"{librechat:+.0f} s against MongoDB, {librechat - ahead_seconds:+.0f} s against this machine"
    if abs(librechat) > _SKEW_SECONDS:
        remedy = "let NTP run where LibreChat runs; the times of turns in Langfuse are LibreChat's"
        return warned(check, seen, remedy)
    return passed(check, seen)


async def check_privileges(database: Database, *, with_users: bool, with_groups: bool) -> list[Finding]:
    """What the user may read, and whether it may do too much."""
    try:
        user, privileges = await ask_privileges(database)
    except ExaminationFailed as error:
        return [failed("privileges on LibreChat", error.failure, error.hint)]
    return judge_reading(
        Rights(user, privileges), database.name, with_users=with_users, with_groups=with_groups
    )


async def check_oplog(
    database: Database, checkpoints: Sequence[StoredCheckpoint], downtime: timedelta
) -> Finding:
    """Whether the oplog reaches back for the longest time without a tailer."""
    wanted = downtime.total_seconds()
    grow = (
        f"db.adminCommand({{replSetResizeOplog: 1, minRetentionHours: {wanted / 3600:g}}}) at once, and "
        f"--oplogMinRetentionHours {wanted / 3600:g} in mongod's command, so that it stays so"
    )
    try:
        oplog = await ask_oplog(database)
    except ExaminationFailed as error:
        if error.code is None:
            return failed("oplog window", error.failure, error.hint)
        seen = f"not known: {error.failure}"
        remedy = "grant serverStatus on the cluster (deploy/mongodb/README.md), or look with rs.printReplicationInfo()"
        return warned("oplog window", seen, remedy)
    if oplog is None:
        return skipped("oplog window", "the server has no oplog")
    window = oplog.last_seconds - oplog.first_seconds
    seen = f"reaches back {_hours(window)}, {_hours(wanted)} are wanted"
    left = [checkpoint.position.cluster_seconds - oplog.first_seconds for checkpoint in checkpoints]
    if window >= _YOUNG_SECONDS and left and min(left) < window / 4:
        return warned(
            "oplog window",
            f"{seen}; of it only {_hours(max(0, min(left)))} lie before the stored position",
            f"see why the position does not move (/readyz of the daemon), and {grow}",
        )
    if window < wanted:
        return warned("oplog window", f"{seen}; a young oplog still grows", grow)
    return passed("oplog window", seen)


async def check_streams(
    database: Database, streams: Sequence[Stream], checkpoints: Sequence[StoredCheckpoint]
) -> list[Finding]:
    """Whether each stream opens where the daemon would open it."""
    stored = find_oldest(checkpoints)
    return [await _check_stream(database, stream, stored.get(stream)) for stream in streams]


async def _check_stream(database: Database, stream: Stream, stored: StreamPosition | None) -> Finding:
    check = f"stream {stream.value}"
    try:
        await try_resuming(database, stream, stored)
    except ExaminationFailed as error:
        if error.history_lost and stored is not None:
            return failed(
                check,
                f"the stream cannot be resumed at the stored position ({error.failure})",
                "start the tailer: it declares the gap and fills it from the collections; then make the oplog longer",
            )
        return failed(check, error.failure, error.hint)
    return passed(
        check,
        "opens from now on: no position is stored yet" if stored is None else "opens at the stored position",
    )


async def check_rows(database: Database, *, native_is_skipped: bool, is_guessed: bool) -> list[Finding]:
    """Whether the last messages can be read, and whether LibreChat traces them itself. `is_guessed`: nobody named the
    database."""
    try:
        if is_guessed:
            await refuse_wrong_guess(database)
        rows = await read_last_rows(database, _ROWS)
    except ExaminationFailed as error:
        return [failed("messages", error.failure, error.hint)]
    except SourceError as error:
        return [failed("messages", error.subject, error.hint)]
    if not rows.read:
        seen = f"{database.name}.messages is empty"
        return [
            warned(
                "messages",
                seen,
                "check that TAILER_MONGO_URI names LibreChat's database, and ask LibreChat something",
            )
        ]
    if rows.broken:
        counts = ", ".join(f"{field}: {number}" for field, number in sorted(rows.broken.items()))
        first = warned(
            "messages",
            f"of the last {rows.read} some are no messages ({counts})",
            "see docs/runbooks/TailerSchemaDrift.md",
        )
    else:
        first = passed("messages", f"the last {rows.read} can be read")
    return [first, _judge_native(rows.traced_natively, rows.read, native_is_skipped=native_is_skipped)]


def _judge_native(native: int, read: int, *, native_is_skipped: bool) -> Finding:
    if not native:
        return passed("traced once", f"LibreChat itself traced none of the last {read} messages")
    seen = f"LibreChat itself traced {native} of the last {read} messages"
    what = "those are left out here" if native_is_skipped else "those are there twice"
    return warned(
        "traced once",
        f"{seen}; {what}",
        "take LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY out of LibreChat's environment, and give the tailer its keys in a "
        "file of its own",
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - an hour
