"""`python -m tests.benchmarks.shards`: the same backlog and the same live turns with 1, 2 and 4 shards.

Everything runs on one machine, so that more shards than cores are no faster: what counts is the CPU of each turn, in
the shards together and in mongod.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tailer.core.identity import turn_trace_id
from tailer.demo.stage.replica_set import ReplicaSet
from tests.benchmarks.phases import WARMING_SECONDS, Phase, engage_cast
from tests.benchmarks.processes import Process, cpu_seconds_of, start_fake, start_tailer
from tests.benchmarks.turns import InventedTurn, invent_turns
from tests.benchmarks.writer import DATABASE, Writer
from tests.fakes.langfuse import ControlClient

_POLL_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 240.0


@dataclass(frozen=True, slots=True)
class Share:
    """What a number of shards needed: turns a second, and milliseconds of CPU for each turn."""

    total: int
    turns_a_second: float
    shards_milliseconds: float
    mongod_milliseconds: float
    arrived: int
    doubled: int

    def __str__(self) -> str:
        return (
            f"{self.total or 'no':>3} shards  {self.turns_a_second:8.0f} turns/s  {self.shards_milliseconds:6.2f} ms/turn "
            f"{self.mongod_milliseconds:6.2f} ms/turn in mongod  {self.arrived} arrived, {self.doubled} twice"
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """Where it takes place."""

    uri: str
    mongod_id: int
    langfuse_url: str
    fake: ControlClient
    directory: Path

    @contextmanager
    def running(self, total: int) -> Iterator[Sequence[Process]]:
        """All shards of a number, which has a state database of its own."""
        with ExitStack() as stack:
            shards = [
                stack.enter_context(
                    start_tailer(
                        self.uri,
                        self.langfuse_url,
                        self.directory,
                        {
                            "TAILER_STATE_DATABASE": f"tailer_{total}",
                            "TAILER_TOTAL_SHARDS": str(total),
                            "TAILER_SHARD": str(index),
                        },
                        name=f"tailer-{index}of{total}",
                    )
                )
                for index in range(total)
            ]
            yield shards
            for shard in shards:
                shard.end()

    def costs(self, shards: Sequence[Process]) -> tuple[float, float]:
        """The CPU seconds until now: of the shards together, and of the server."""
        return sum(shard.cpu_seconds() for shard in shards), cpu_seconds_of(self.mongod_id)


def measure_backlog(stage: Stage, total: int, turns: Sequence[InventedTurn]) -> Share:
    """Turns that were all written before the shards start; their start is part of it."""
    stage.fake.reset()
    mongod_before, began = cpu_seconds_of(stage.mongod_id), time.monotonic()
    with stage.running(total) as shards:
        _wait_for(stage, shards, turns)
        seconds = time.monotonic() - began
        cpu, mongod = stage.costs(shards)
    return _conclude(stage, total, turns, seconds, cpu, mongod - mongod_before, len(turns))


def measure_life(stage: Stage, writer: Writer, total: int, phase: Phase) -> Share:
    """Turns that are written at a steady rate; nobody follows them where there are no shards."""
    stage.fake.reset()
    cast = engage_cast(writer, [], seed=100 + total)
    ticks = phase.spread(cast.turns_of(phase))
    turns = [turn for tick in ticks for turn in tick]
    marks = {phase.ticks_until(WARMING_SECONDS) - 1, phase.ticks - 1}
    with stage.running(total) as shards:
        seen = [
            (time.monotonic(), *stage.costs(shards)) for number in writer.write_live(ticks) if number in marks
        ]
        if total:
            _wait_for(stage, shards, turns)
    seconds, cpu, mongod = (late - early for early, late in zip(*seen, strict=True))
    return _conclude(stage, total, turns, seconds, cpu, mongod, phase.measured_turns)


def _conclude(
    stage: Stage,
    total: int,
    turns: Sequence[InventedTurn],
    seconds: float,
    cpu: float,
    mongod: float,
    count: float,
) -> Share:
    arrived = {turn_trace_id(turn.response_id) for turn in turns} & stage.fake.arrivals().keys()
    return Share(
        total,
        count / seconds,
        cpu / count * 1000,
        mongod / count * 1000,
        len(arrived),
        len(stage.fake.state()["duplicates"]),
    )


def _wait_for(stage: Stage, shards: Sequence[Process], turns: Sequence[InventedTurn]) -> None:
    wanted = {turn_trace_id(turn.response_id) for turn in turns}
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not wanted <= stage.fake.arrivals().keys():
        for shard in shards:
            shard.check()
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.shards", description=__doc__)
    parser.add_argument("--turns", type=int, default=8_000, help="turns of the backlog")
    parser.add_argument("--totals", type=int, nargs="+", default=[1, 2, 4], help="numbers of shards")
    parser.add_argument("--rate", type=int, default=100, help="turns a second of the live phase")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured time of the live phase")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, ReplicaSet(oplog_megabytes=2000) as replica_set:
        fake_process, fake, langfuse_url = start_fake(Path(name))
        uri = replica_set.uri_of(DATABASE)
        stage = Stage(uri, replica_set.members[0].process_id or 0, langfuse_url, fake, Path(name))
        writer = Writer(uri)
        with fake_process:
            writer.prepare()
            for total in options.totals:
                # The first start stores a position; what it should follow comes after it.
                with stage.running(total):
                    pass
            turns = list(invent_turns(options.turns, seed=1))
            writer.write_all(turns)
            print(f"backlog of {len(turns)} turns")
            for total in options.totals:
                print(measure_backlog(stage, total, turns), flush=True)
            phase = Phase("live", options.rate, 0, options.seconds)
            print(f"live, {options.rate} turns a second")
            for total in (0, *options.totals):
                print(measure_life(stage, writer, total, phase), flush=True)
            writer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
