"""Two projects of Langfuse and a file, over a real MongoDB: records, content and keys by destination."""

import asyncio
import json
from pathlib import Path

import pytest

from tailer.core.identity import turn_trace_id
from tailer.events import DestinationLeft, DestinationReturned
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, answer
from tests.integration.running import running
from tests.rows import answer as said
from tests.rows import question as asked

SECRET = "only for the first"


def describe(first: FakeLangfuse, second: FakeLangfuse, file: Path) -> str:
    """The file of destinations: the second project gets team-b's turns without content, the file everything."""
    return f"""
otherwise = ["default", "archive"]

[destinations.default]
kind = "langfuse"
host = "{first.url}"
public_key = "{first.public_key}"
secret_key = "{first.secret_key}"

[destinations.team-b]
kind = "langfuse"
host = "{second.url}"
public_key = "{second.public_key}"
secret_key = "{second.secret_key}"
content = "none"
environment = "team-b"

[destinations.archive]
kind = "file"
path = "{file}"
content = "masked"

[[routes]]
when = {{ endpoint = ["team-b"] }}
to = ["default", "team-b", "archive"]
"""


async def write_turns(databases: Databases, *numbers: int) -> None:
    """Even ones are team-b's."""
    for number in numbers:
        own = {"conversationId": f"c{number}", "endpoint": "openAI" if number % 2 else "team-b"}
        text = f"{SECRET} {number}, mail alice{number}@example.com"
        await databases.source["messages"].insert_many(
            [
                asked(f"q{number}", None, **{**own, "text": text}),
                said(f"a{number}", f"q{number}", **{**own, "text": text}),
            ]
        )


def in_file(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def turns(*numbers: int) -> list[str]:
    return sorted(turn_trace_id(f"a{number}") for number in numbers)


@pytest.mark.timeout(180)
async def test_each_of_three_destinations_gets_its_own_turns_in_its_own_words(
    databases: Databases, tmp_path: Path
) -> None:
    """One refuses its keys for a while, and the tailer is killed meanwhile; the withheld text is nowhere in its
    bytes."""
    path, archive = tmp_path / "destinations.toml", tmp_path / "archive.jsonl"
    async with FakeLangfuse() as fake, FakeLangfuse() as second:
        path.write_text(describe(fake, second, archive))
        async with running(databases, fake, destinations_file=path) as run:
            await write_turns(databases, 0, 1)
            await run.until_done(seconds=40)
        second.faults.add(answer(401, times=10_000))
        async with running(databases, fake, destinations_file=path) as run:
            await write_turns(databases, 2, 3)
            await run.until(lambda: bool(run.events.of(DestinationLeft)), seconds=40)
            await write_turns(databases, 4, 5)
            await run.until_done(seconds=40)
            assert sorted(fake.trace_ids()) == turns(0, 1, 2, 3, 4, 5)
            assert await databases.state["owed"].count_documents({"destination": "team-b"}) == 1
        second.faults.clear()
        async with running(databases, fake, destinations_file=path) as run:
            async with asyncio.timeout(60):
                while len(second.trace_ids()) < 3 or await databases.state["owed"].count_documents({}):
                    run.check()
                    await asyncio.sleep(0.05)
            await run.until_done(seconds=40)
            assert len(run.events.of(DestinationReturned)) <= 1

        assert sorted(second.trace_ids()) == turns(0, 2, 4)
        assert {span.attributes["langfuse.environment"] for span in second.spans} == {"team-b"}
        assert SECRET not in json.dumps([dict(span.attributes) for span in second.spans], default=str)
        second.release()
        assert second.violations == []
    assert sorted(fake.trace_ids()) == turns(0, 1, 2, 3, 4, 5)
    assert SECRET in json.dumps([dict(span.attributes) for span in fake.spans], default=str)
    assert sorted(in_file(archive)) == turns(0, 1, 2, 3, 4, 5)
    assert SECRET in archive.read_text()
    assert "@example.com" not in archive.read_text()
    records = await databases.state["exports"].find().to_list(None)
    kept = {(record.get("destination"), record["_id"]) for record in records}
    expected: set[tuple[str | None, str]] = {(None, turn) for turn in turns(0, 1, 2, 3, 4, 5)}
    expected |= {("archive", f"archive/{turn}") for turn in turns(0, 1, 2, 3, 4, 5)}
    assert kept == expected | {("team-b", f"team-b/{turn}") for turn in turns(0, 2, 4)}
