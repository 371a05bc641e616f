"""`python -m tests.fakes.langfuse`: the fake as a process; says its port in one JSON line on stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from tests.fakes.langfuse.releases import CURRENT, EVENTS_ONLY, LEGACY, SELF_HOSTED_3
from tests.fakes.langfuse.server import FakeLangfuse

RELEASES = {
    "current": CURRENT,
    "events_only": EVENTS_ONLY,
    "legacy": LEGACY,
    "self_hosted_3": SELF_HOSTED_3,
}


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.langfuse", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--public-key", default="pk-lf-test")
    parser.add_argument("--secret-key", default="sk-lf-test")
    parser.add_argument("--port-file", type=Path, help="also write the port to this file")
    parser.add_argument("--light", action="store_true", help="count ids and bytes, keep and check no content")
    parser.add_argument("--journal", type=Path, help="append accepted requests here and reload them on start")
    parser.add_argument("--release", choices=sorted(RELEASES), default="current")
    parser.add_argument("--reads-a-minute", type=int, help="limit reads as Langfuse Cloud does; Hobby has 30")
    parser.add_argument("--visible-after", type=float, default=0.0, help="seconds until a span can be read")
    return parser.parse_args(arguments)


async def serve(arguments: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    fake = FakeLangfuse(
        host=arguments.host,
        port=arguments.port,
        public_key=arguments.public_key,
        secret_key=arguments.secret_key,
        light=arguments.light,
        journal_path=arguments.journal,
        visible_after_seconds=arguments.visible_after,
        release=RELEASES[arguments.release],
        reads_a_minute=arguments.reads_a_minute,
    )
    async with fake:
        if arguments.port_file is not None:
            # Renamed into place: whoever waits for the file never reads half a number.
            unfinished = arguments.port_file.with_suffix(".unfinished")
            unfinished.write_text(f"{fake.port}\n")
            unfinished.replace(arguments.port_file)
        sys.stdout.write(json.dumps({"port": fake.port, "url": fake.url}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(parse_arguments(sys.argv[1:])))
