"""`tailer backfill`: sends turns from the collections that no stream has reported, and shows the progress."""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from tailer.commands.command import Command
from tailer.commands.ids import read_id
from tailer.commands.progress import Progress
from tailer.commands.times import read_moment

if TYPE_CHECKING:
    from tailer.core.backfill import Job
    from tailer.operations.backfill import BackfillDesk, Estimate

EXIT_INCOMPLETE: Final = 1
_LOOK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 10.0


def _add_options(parser: argparse.ArgumentParser) -> None:
    for name, meaning in (("--since", "from this time on"), ("--until", "up to this time")):
        parser.add_argument(
            name, type=read_moment, metavar="ISO", help=f"rows made {meaning}, such as 2026-01-31T08:00:00Z"
        )
    parser.add_argument("--conversation", type=read_id, metavar="ID", help="one conversation only")
    parser.add_argument(
        "--destination", metavar="NAME", help="send to this destination only (default: to all)"
    )
    parser.add_argument("--dry-run", action="store_true", help="count what there is and send nothing")
    parser.add_argument("--json", action="store_true", help="the result for programs")


def _execute(options: argparse.Namespace) -> int:
    try:
        return asyncio.run(_backfill(options))
    except KeyboardInterrupt:
        print(
            "\nleft: where a tailer is running it goes on with the backfill; asked again, this shows how far it is"
        )
        raise


async def _backfill(options: argparse.Namespace) -> int:
    from tailer.operations.backfill import Request, open_backfills  # noqa: PLC0415 - a small command starts quickly
    from tailer.settings import load_settings  # noqa: PLC0415

    request = Request(options.since, options.until, options.conversation, options.destination)
    async with open_backfills(load_settings()) as desk:
        if options.dry_run:
            return _tell_estimate(await desk.estimate(request), as_json=options.json)
        job = await desk.ask(request)
        progress = Progress(sys.stderr if options.json else sys.stdout, time.monotonic)
        done = await _follow(desk, job.job_id, progress)
    return _tell_result(done, as_json=options.json)


async def _follow(desk: "BackfillDesk", job_id: str, progress: Progress) -> "Job":
    """Watch a job until it is done; do the work here if no daemon does it."""
    job = await desk.look_at(job_id)
    while not job.is_done:
        if await desk.has_daemon():
            progress.say("a running tailer does it; this only shows how far it is")
            job = await _watch(desk, job_id, progress, patience_seconds=_PATIENCE_SECONDS)
            if not job.is_done:
                progress.say(
                    "it has not moved for a while: the tailer gives way to its streams, or waits for Langfuse, or runs "
                    "with LANGFUSE_ENABLED=false and sends nothing"
                )
            continue
        progress.say("no tailer is running: it is done here")
        async with desk.working(job_id) as daemon:
            watching = asyncio.create_task(
                _watch(desk, job_id, progress, patience_seconds=float("inf")), name="watch"
            )
            await asyncio.wait({daemon, watching}, return_when=asyncio.FIRST_COMPLETED)
            if daemon.done() and not watching.done():
                watching.cancel()
                daemon.result()
                return await desk.look_at(job_id)
            job = watching.result()
    return job


async def _watch(desk: "BackfillDesk", job_id: str, progress: Progress, *, patience_seconds: float) -> "Job":
    """Show a job until it is done, or has not moved for a while."""
    moved, seen = time.monotonic(), -1
    while True:
        job = await desk.look_at(job_id)
        progress.show(job.counts.rows, job.total_rows, f"{job.counts.sent} sent")
        if job.counts.rows != seen:
            moved, seen = time.monotonic(), job.counts.rows
        if job.is_done or time.monotonic() - moved > patience_seconds:
            if job.is_done:
                progress.end()
            return job
        await asyncio.sleep(_LOOK_SECONDS)


def _tell_estimate(estimate: "Estimate", *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(estimate)))
        return 0
    print(
        f"{estimate.rows} rows, {estimate.responses} responses among them\n"
        f"  {estimate.known} were sent before\n"
        f"  {estimate.not_sampled} belong to conversations that are not sampled\n"
        f"  {estimate.to_look_at} would be read, and sent unless they are copies, temporary, unfinished or left out "
        "by a setting"
    )
    return 0


def _tell_result(job: "Job", *, as_json: bool) -> int:
    counts = job.counts
    if as_json:
        print(json.dumps({"job_id": job.job_id, "is_done": job.is_done, **asdict(counts)}))
    else:
        state = "done" if job.is_done else "stopped; asked again it goes on from here"
        print(
            f"{state}: {counts.rows} rows walked, {counts.sent} turns sent, {counts.known} sent before, "
            f"{counts.left_out} give no trace or wait"
        )
    return 0 if job.is_done else EXIT_INCOMPLETE


COMMAND = Command(
    "backfill", "send turns from the collections that the streams did not tell of", _execute, _add_options
)
