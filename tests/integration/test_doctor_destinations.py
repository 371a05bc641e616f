"""The doctor asks each destination of a file by itself, and names the one that is unwell."""

from datetime import timedelta
from pathlib import Path

from tailer.operations.doctor.addresses import check_addresses
from tailer.operations.doctor.examination import examine
from tailer.operations.doctor.findings import Finding, Verdict, failed
from tailer.settings import Settings
from tests.e2e.databases import Databases
from tests.evidence import Events
from tests.fakes.langfuse import FakeLangfuse, Route, answer
from tests.fakes.otlp import FakeReceiver
from tests.integration.leading import lead
from tests.integration.running import settings_for
from tests.sent import make_owed


def write(path: Path, *fakes: FakeLangfuse, more: str = "") -> Path:
    """A file of destinations, one a fake, called `a`, `b` and so on."""
    tables = [
        f'[destinations.{name}]\nkind = "langfuse"\nhost = "{fake.url}"\n'
        f'public_key = "{fake.public_key}"\nsecret_key = "{fake.secret_key}"\n'
        for name, fake in zip("ab", fakes, strict=False)
    ]
    file = path / "destinations.toml"
    file.write_text('otherwise = ["a"]\n' + "".join(tables) + more, encoding="utf-8")
    return file


def settings_of(databases: Databases, file: Path) -> Settings:
    return settings_for(
        databases,
        None,
        destinations_file=file,
        http_host="::",
        http_port=0,
        lease_time=timedelta(seconds=1),
    )


async def findings_of(databases: Databases, file: Path) -> dict[str, Finding]:
    found = await examine(settings_of(databases, file), downtime=timedelta(hours=24))
    return {finding.check: finding for finding in found}


async def test_each_destination_is_asked_by_itself_and_routes_are_told_in_their_order(
    databases: Databases, tmp_path: Path
) -> None:
    more = """
        [destinations.lines]
        kind = "file"
        path = "/no/such/folder/lines.jsonl"
        [[routes]]
        when = { tenant = ["x"], endpoint = ["openAI", "azure*"] }
        to = ["b", "lines"]
        [[routes]]
        when = { tag = ["private"] }
        to = []
        """
    async with FakeLangfuse() as well, FakeLangfuse() as refusing:
        refusing.faults.add(answer(401, route=Route.PROJECTS, times=None))
        found = await findings_of(databases, write(tmp_path, well, refusing, more=more))

    assert found["Langfuse keys (a)"].verdict is Verdict.PASS
    assert found["Langfuse reachable (b)"].verdict is Verdict.PASS
    assert found["Langfuse keys (b)"].verdict is Verdict.FAIL
    assert found["trace file (lines)"].verdict is Verdict.FAIL
    assert "path of [destinations.lines]" in (found["trace file (lines)"].remedy or "")
    assert [finding.seen for check, finding in found.items() if check.startswith("route ")] == [
        "tenant x and endpoint openAI or azure* → b, lines",
        "tag private → none",
        "every other turn → a",
    ]
    assert refusing.secret_key not in str(found)


async def test_an_otlp_receiver_is_asked_whether_it_takes_spans(databases: Databases, tmp_path: Path) -> None:
    """One that wants a key, one that got it, and one that is not there; nothing is left behind."""
    async with FakeReceiver(keys={"x-key": "s3cret"}) as receiver:
        file = tmp_path / "destinations.toml"
        tables = {
            "with-key": f'endpoint = "{receiver.url}"\nheaders = {{ x-key = "s3cret" }}\n',
            "without": f'endpoint = "{receiver.url}"\n',
            "away": 'endpoint = "http://127.0.0.1:1"\n',
        }
        file.write_text(
            "".join(f'[destinations.{name}]\nkind = "otlp"\n{text}' for name, text in tables.items()),
            encoding="utf-8",
        )
        found = await findings_of(databases, file)

    verdicts = {name: found[f"OTLP receiver ({name})"].verdict for name in tables}
    assert verdicts == {"with-key": Verdict.PASS, "without": Verdict.FAIL, "away": Verdict.FAIL}
    assert "endpoint of [destinations.away]" in (found["OTLP receiver (away)"].remedy or "")
    assert receiver.spans == []
    assert "s3cret" not in str(found)


async def test_what_is_owed_to_a_destination_is_said_with_its_name(
    databases: Databases, tmp_path: Path
) -> None:
    """It was away, and the daemon that is to bring it may be away itself."""
    async with FakeLangfuse() as fake, FakeLangfuse() as other:
        file = write(tmp_path, fake, other)
        assert not [check for check in await findings_of(databases, file) if check.startswith("owed")]
        state = await lead(databases.source.client, databases.state.name, Events())
        await state.of("b").owe([make_owed(1), make_owed(2)])
        await state.owe([make_owed(1)])
        found = await findings_of(databases, file)

    assert {
        check: finding.seen.split()[0] for check, finding in found.items() if check.startswith("owed")
    } == {
        "owed to b": "2",
        "owed to default": "1",
    }
    assert found["owed to b"].verdict is Verdict.WARN


async def test_a_langfuse_that_does_not_answer_is_named_by_its_table(
    databases: Databases, tmp_path: Path
) -> None:
    async with FakeLangfuse() as fake:
        fake.faults.add(answer(502, route=Route.HEALTH, times=None))
        found = await findings_of(databases, write(tmp_path, fake))

    assert found["Langfuse reachable (a)"].verdict is Verdict.FAIL
    assert "host of [destinations.a]" in (found["Langfuse reachable (a)"].remedy or "")
    assert found["Langfuse keys (a)"].verdict is Verdict.SKIP


def test_a_destination_that_means_the_container_itself_is_named(databases: Databases, tmp_path: Path) -> None:
    file = tmp_path / "destinations.toml"
    file.write_text(
        '[destinations.a]\nkind = "langfuse"\nhost = "http://localhost:3000"\npublic_key = "pk-a"\n'
        'secret_key = "sk-a"\n[destinations.b]\nkind = "otlp"\nendpoint = "http://127.0.0.1:4318"\n',
        encoding="utf-8",
    )
    broken = [failed("Langfuse reachable (a)", "x", "y"), failed("OTLP receiver (b)", "x", "y")]

    found = check_addresses(settings_of(databases, file), broken, in_container=True)

    assert [finding.seen.split(",")[0] for finding in found] == [
        "host of [destinations.a] names localhost",
        "endpoint of [destinations.b] names 127.0.0.1",
    ]
