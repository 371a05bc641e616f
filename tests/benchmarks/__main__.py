"""`python -m tests.benchmarks`: our daemon and the script that one would write instead, on the same turns.

Starts a real replica set and the fake Langfuse, writes turns as LibreChat writes them, and lets both work them off from
a backlog and follow them live.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from tailer.demo.stage.replica_set import ReplicaSet
from tests.benchmarks.measures import Measures, Scene, measure_backlog, measure_live, server_seconds
from tests.benchmarks.processes import start_fake
from tests.benchmarks.report import SUBJECTS, describe_machine, judge, tabulate_backlog, tabulate_live
from tests.benchmarks.turns import InventedTurn, invent_turns
from tests.benchmarks.writer import DATABASE, Writer

_PARTS = ("backlog", "live")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--turns", type=int, default=20_000, help="turns of the backlog")
    parser.add_argument("--rate", type=int, default=200, help="turns a second of the live run")
    parser.add_argument("--seconds", type=int, default=60, help="length of the live run")
    parser.add_argument(
        "--only", nargs="+", choices=(*_PARTS, *SUBJECTS), default=[], help="leave out the other parts"
    )
    options = parser.parse_args(arguments)
    options.parts = [part for part in _PARTS if part in options.only] or _PARTS
    options.subjects = [subject for subject in SUBJECTS if subject in options.only] or SUBJECTS
    return options


def run(options: argparse.Namespace, directory: Path) -> None:
    """All that was asked for, and the report."""
    backlog: dict[str, Measures] = {}
    live: dict[str, Measures] = {}
    with ReplicaSet(oplog_megabytes=2000) as replica_set:
        uri = replica_set.uri_of(DATABASE)
        fake_process, fake, langfuse_url = start_fake(directory)
        writer = Writer(uri)
        with fake_process:
            scene = Scene(uri, langfuse_url, fake, writer, directory)
            writer.prepare()
            if "backlog" in options.parts:
                backlog = _run_backlog(scene, options)
            if "live" in options.parts:
                live = _run_live(scene, options)
            writer.close()
        print(f"\n{describe_machine(_server_version(uri))}")
    if backlog:
        print(
            f"\nBacklog: {options.turns} turns were in the oplog before the start\n{tabulate_backlog(backlog)}"
        )
    if live:
        print(f"\nLive: {options.rate} turns a second for {options.seconds} s\n{tabulate_live(live)}")
    print("", *judge(backlog, live), sep="\n")


def _run_backlog(scene: Scene, options: argparse.Namespace) -> dict[str, Measures]:
    # The first start stores a position; the turns come after it.
    scene.start("tailer", since_seconds=0).end()
    since = server_seconds(scene.uri) + 1
    turns = list(invent_turns(options.turns, seed=1))
    _say(f"writing {len(turns)} turns: {_describe_sizes(turns)}")
    scene.writer.write_all(turns)
    measured = {}
    for subject in options.subjects:
        _say(f"backlog: {subject}")
        measured[subject] = measure_backlog(scene, subject, turns, since_seconds=since)
    return measured


def _run_live(scene: Scene, options: argparse.Namespace) -> dict[str, Measures]:
    measured = {}
    for subject in options.subjects:
        # The same turns for both, under ids of their own: two runs of one seed would be one set of rows.
        turns = list(invent_turns(options.rate * options.seconds, seed=2 + SUBJECTS.index(subject)))
        _say(f"live: {subject}")
        measured[subject] = measure_live(scene, subject, turns, rate=options.rate)
    return measured


def _describe_sizes(turns: Sequence[InventedTurn]) -> str:
    history = sum(turn.history_bytes for turn in turns) / len(turns)
    answers = sum(len(turn.answer) for turn in turns) / len(turns)
    tools = sum(turn.tool is not None for turn in turns) / len(turns)
    return f"{history:.0f} bytes of history, {answers:.0f} of answer, {tools:.0%} with a tool"


def _server_version(uri: str) -> str:
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        return str(client.server_info()["version"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tailer-benchmarks-") as name:
        run(parse_arguments(sys.argv[1:]), Path(name))
