"""The checks of the state database."""

from collections.abc import Mapping, Sequence
from functools import partial

from tailer.core.moments import describe_seconds
from tailer.core.stream.shard import Shard
from tailer.errors import StateError, TailerError
from tailer.mongo.connection import Client, Database
from tailer.mongo.examination import ExaminationFailed, try_writing
from tailer.mongo.source_identity import holds_any_row, identify_source, refuse_own_database
from tailer.mongo.state import StateDatabase
from tailer.mongo.state.owner import check_owner
from tailer.mongo.state.positions import StoredCheckpoint
from tailer.mongo.state.survey import count_pending, list_all_checkpoints
from tailer.operations.doctor.findings import Finding, failed, passed, warned
from tailer.operations.instances import find_active_shards
from tailer.operations.opening import ignore_event
from tailer.settings import Settings

_STANDALONE = (20, 263)
_UNAUTHORIZED = 13


async def check_state(
    client: Client, source: Database, settings: Settings
) -> tuple[Sequence[StoredCheckpoint], list[Finding]]:
    """Whether it can be written to and belongs to this LibreChat, what it holds, and whether another instance
    exists."""
    name = settings.state_database
    try:
        await refuse_own_database(source, client, name)
        await try_writing(client, name)
    except TailerError as error:
        return (), [failed("state database", error.subject, error.hint)]
    except ExaminationFailed as error:
        if error.code in _STANDALONE:
            remedy = "the state needs transactions: use a replica set, or leave TAILER_STATE_URI out"
        elif error.code == _UNAUTHORIZED:
            remedy = f"grant readWrite on {name} (deploy/mongodb/README.md), or correct TAILER_STATE_URI"
        else:
            remedy = error.hint
        return (), [failed("state database", f"{name}: {error.failure}", remedy)]
    state = StateDatabase(client, name, ignore_event)
    findings = [passed("state database", f"{name} can be written to")]
    try:
        identity = await identify_source(source)
        owner = await check_owner(state, identity, partial(holds_any_row, source))
    except TailerError as error:
        return (), [*findings, failed("state's owner", error.subject, error.hint)]
    whose = "has no owner yet" if owner is None else f"is that of {owner}"
    findings.append(passed("state's owner", f"the state {whose}"))
    try:
        checkpoints = await list_all_checkpoints(state)
        pending = await count_pending(state)
        active = await find_active_shards(state, settings.lease_time)
    except StateError as error:
        return (), [*findings, failed("state", error.subject, error.hint)]
    findings.append(_judge_checkpoints(checkpoints))
    if pending.dead_letters:
        seen = f"{pending.dead_letters} turns could not be sent"
        findings.append(warned("dead letters", seen, "`tailer dead-letters list` says which and why"))
    else:
        findings.append(passed("dead letters", "none"))
    if pending.gaps:
        seen = f"{pending.gaps} stretches of lost history are not filled yet"
        findings.append(
            warned("gaps", seen, "the running daemon fills them; docs/runbooks/TailerHistoryLost.md")
        )
    for destination, count in pending.owed.items():
        seen = f"{count} turns or later pieces of turns wait until it accepts them"
        remedy = (
            "it was away; the running daemon sends them once it is back: see the checks of this destination"
        )
        findings.append(warned(f"owed to {destination}", seen, remedy))
    findings += judge_instances(active, settings.shard.total)
    return checkpoints, findings


def judge_instances(active: Mapping[Shard, bool], wanted_total: int) -> list[Finding]:
    """Whether every shard has an active instance, and the state is divided as the settings say."""
    if len(active) == 1:
        seen = "one is active" if all(active.values()) else "none is active"
        findings = [passed("instances", f"{seen} on this state database; more of them stand by")]
    elif missing := [str(shard) for shard, is_active in active.items() if not is_active]:
        findings = [
            failed(
                "instances",
                f"shards {', '.join(missing)} have no active instance: nobody follows their conversations",
                f"start an instance with TAILER_TOTAL_SHARDS={len(active)} for each; docs/scaling.md",
            )
        ]
    else:
        findings = [passed("instances", f"all {len(active)} shards have an active one")]
    if len(active) != wanted_total and not any(active.values()):
        seen = f"the next start divides the state into {wanted_total}, it is divided into {len(active)}"
        return [passed("shards", seen)]
    if len(active) != wanted_total:
        findings.append(
            warned(
                "shards",
                f"the state is divided into {len(active)}, and TAILER_TOTAL_SHARDS is {wanted_total}",
                "to change the number, stop all instances and start them with the new one (docs/scaling.md); otherwise "
                f"give this command TAILER_TOTAL_SHARDS={len(active)} too",
            )
        )
    return findings


def _judge_checkpoints(checkpoints: Sequence[StoredCheckpoint]) -> Finding:
    if not checkpoints:
        return passed(
            "stored position", "none yet: the next start is a first one, and TAILER_START says from where"
        )
    oldest = min(checkpoint.position.cluster_seconds for checkpoint in checkpoints)
    return passed("stored position", f"{describe_seconds(oldest)} and later")
