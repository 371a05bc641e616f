"""`python -m tests.benchmarks`: our daemon and the script that one would write instead, on the same turns.

Starts a real replica set and the fake Langfuse, writes turns as LibreChat writes them, and lets both work them off from
a backlog and follow them live, one after the other. Prints tables and stores the figures as JSON.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from tailer.demo.stage.replica_set import ReplicaSet
from tests.benchmarks.figures import BacklogFigures, Figures, LifeFigures
from tests.benchmarks.goals import judge
from tests.benchmarks.measures import Scene, measure_backlog, measure_life, measure_nobody, server_seconds
from tests.benchmarks.phases import LENGTHS, Cast, Phase, engage_cast, live_phases
from tests.benchmarks.processes import awake_processors, start_fake
from tests.benchmarks.report import NOBODY, SUBJECTS, compare, describe_machine, tabulate
from tests.benchmarks.turns import invent_turns
from tests.benchmarks.writer import DATABASE, Writer

_PARTS = ("backlog", "live")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*_PARTS, *SUBJECTS, NOBODY),
        default=[],
        help="leave out the other parts",
    )
    parser.add_argument("--turns", type=int, default=20_000, help="turns of the backlog")
    parser.add_argument(
        "--rounds", type=int, default=1, help="backlogs, of which each subject's cheapest counts"
    )
    parser.add_argument(
        "--rates", type=int, nargs="*", default=[1, 8, 200], metavar="N", help="turns a second of live phases"
    )
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=LENGTHS, metavar="N", help="messages before a turn"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of a live phase")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="idle time before the live phases")
    parser.add_argument(
        "--everything",
        action="store_true",
        help="follow live with the fuller script too, not only from a backlog",
    )
    parser.add_argument(
        "--awake", action="store_true", help="keep the processors awake with loops of idle priority (Linux)"
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmark"), help="folder of figures.json")
    parser.add_argument("--against", type=Path, help="figures.json of an earlier run, to compare with")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the daemon other than its defaults",
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter of the subjects: packages of tests beside theirs cost them memory",
    )
    options = parser.parse_args(arguments)
    options.settings = dict(pair.split("=", 1) for pair in options.set)
    options.parts = [part for part in _PARTS if part in options.only] or _PARTS
    options.subjects = [subject for subject in (*SUBJECTS, NOBODY) if subject in options.only] or [
        *SUBJECTS,
        NOBODY,
    ]
    return options


def run(options: argparse.Namespace, directory: Path) -> Figures:
    """All that was asked for."""
    backlog: dict[str, BacklogFigures] = {}
    lives: dict[str, LifeFigures] = {}
    phases = live_phases(options.rates, options.lengths, options.seconds) if "live" in options.parts else []
    with ReplicaSet(oplog_megabytes=2000) as replica_set:
        uri = replica_set.uri_of(DATABASE)
        fake_process, fake, langfuse_url = start_fake(directory)
        writer = Writer(uri)
        with fake_process:
            scene = Scene(
                uri,
                replica_set.members[0].process_id or 0,
                langfuse_url,
                fake,
                writer,
                directory,
                options.settings,
                options.python,
            )
            writer.prepare()
            # The long conversations are older than the daemon's first position.
            casts = _engage_casts(scene, options, phases)
            # The first start stores a position; what it should follow comes after it.
            scene.start("tailer", since_seconds=0).end()
            if "backlog" in options.parts:
                backlog = _run_backlog(scene, options)
                scene.forget_what_was_sent()
            for subject, cast in casts.items():
                lives[subject] = _run_life(scene, options, subject, cast, phases)
            writer.close()
        return Figures(describe_machine(_server_version(uri)), backlog, lives)


def _engage_casts(scene: Scene, options: argparse.Namespace, phases: Sequence[Phase]) -> dict[str, Cast]:
    if not phases:
        return {}
    _say("writing the long conversations")
    # The daemon comes first: what the others are given would be a backlog to it.
    subjects = [name for name in options.subjects if name != "fuller" or options.everything or options.only]
    return {
        subject: engage_cast(scene.writer, phases, seed=number) for number, subject in enumerate(subjects)
    }


def _run_backlog(scene: Scene, options: argparse.Namespace) -> dict[str, BacklogFigures]:
    """Each subject's round of the least CPU: what else the machine does only adds to it."""
    rounds = [_run_round(scene, options, seed=number) for number in range(1, options.rounds + 1)]
    return {
        subject: min((measured[subject] for measured in rounds), key=lambda figures: figures.cpu_seconds)
        for subject in rounds[0]
    }


def _run_round(scene: Scene, options: argparse.Namespace, *, seed: int) -> dict[str, BacklogFigures]:
    since = server_seconds(scene.uri) + 1
    turns = list(invent_turns(options.turns, seed=seed))
    history = sum(turn.history_bytes for turn in turns) / len(turns)
    answers = sum(len(turn.answer) for turn in turns) / len(turns)
    tools = sum(turn.tool is not None for turn in turns) / len(turns)
    _say(
        f"writing {len(turns)} turns: {history:.0f} bytes of history, {answers:.0f} of answer, {tools:.0%} with a tool"
    )
    scene.writer.write_all(turns)
    measured = {}
    for subject in options.subjects:
        if subject != NOBODY:
            _say(f"backlog: {subject}")
            measured[subject] = measure_backlog(scene, subject, turns, since_seconds=since)
    return measured


def _run_life(
    scene: Scene, options: argparse.Namespace, subject: str, cast: Cast, phases: Sequence[Phase]
) -> LifeFigures:
    _say(f"live: {subject}")
    if subject == NOBODY:
        return measure_nobody(scene, cast, phases, idle_seconds=options.idle_seconds)
    return measure_life(scene, subject, cast, phases, idle_seconds=options.idle_seconds)


def _server_version(uri: str) -> str:
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        return str(client.server_info()["version"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run, store and print."""
    options = parse_arguments(arguments)
    awake = awake_processors() if options.awake else nullcontext()
    with awake, tempfile.TemporaryDirectory(prefix="tailer-benchmarks-") as name:
        figures = run(options, Path(name))
    options.output.mkdir(parents=True, exist_ok=True)
    figures.write(options.output / "figures.json")
    print(tabulate(figures), "\n".join(map(str, judge(figures))), sep="\n\n")
    if options.against is not None:
        print("", compare(figures, Figures.read(options.against)), sep="\n")
    print(f"\nThe figures are in {options.output}/figures.json; tests.benchmarks.plot draws them")


if __name__ == "__main__":
    main(sys.argv[1:])
