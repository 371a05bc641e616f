"""The actors: two tailers, three mongods and a Langfuse, each of which can be hit and is whole again afterwards."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tailer.demo.stage.member import Member
from tailer.demo.stage.replica_set import ReplicaSet
from tests.certificates import make_authority
from tests.e2e.daemon import Daemon, start
from tests.fakes.langfuse import ControlClient, Route, answer, cut, delay, hang
from tests.fakes.langfuse import Fault as LangfuseFault
from tests.oracle.schedule import Blow, Fault

_RESTART_SECONDS = 0.1
_MANY = 10_000
_READS = (Route.OBSERVATIONS, Route.OBSERVATION)
_LOG_CHARACTERS = 60_000


@dataclass(slots=True)
class Replica:
    """A tailer that an orchestrator starts again whenever it ends."""

    name: str
    settings: Mapping[str, str]
    directory: Path
    daemon: Daemon | None = None
    lives: list[Daemon] = field(default_factory=list)
    exits: Counter[int] = field(default_factory=Counter)
    peak_bytes: int = 0

    async def run(self) -> None:
        """Start, wait for the end, and start again."""
        while True:
            async with start(self.settings, directory=self.directory) as daemon:
                self.daemon = daemon
                self.lives.append(daemon)
                while daemon.process.returncode is None:
                    self.peak_bytes = max(self.peak_bytes, _peak_bytes(daemon.process.pid))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await daemon.process.wait()
                self.exits[daemon.process.returncode] += 1
            await asyncio.sleep(_RESTART_SECONDS)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal, if there is somebody to get it."""
        daemon = self.daemon
        if daemon is None or daemon.process.returncode is not None:
            return False
        daemon.process.send_signal(number)
        return True


def _peak_bytes(process_id: int) -> int:
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


@dataclass(slots=True)
class Langfuse:
    """The strict fake as a process with a journal: what it took before it was killed it has afterwards."""

    directory: Path
    process: asyncio.subprocess.Process | None = None
    url: str = ""

    async def start(self) -> None:
        """Start it, or start it again at its old address."""
        port = self.url.rpartition(":")[2] or "0"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fakes.langfuse", "--port", port, "--visible-after", "0.2"),
            *("--journal", str(self.directory / "journal")),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        self.url = json.loads(await process.stdout.readline())["url"]
        self.process = process

    async def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    @property
    def control(self) -> ControlClient:
        """To program it and to look inside."""
        return ControlClient(self.url, timeout_seconds=60)

    async def misbehave(self, *faults: LangfuseFault) -> None:
        """Put ways to fail in force."""
        await asyncio.to_thread(self.control.add_faults, *faults)

    async def behave(self) -> None:
        """No more of them; what is held is let go."""
        await asyncio.to_thread(self.control.clear_faults)
        await asyncio.to_thread(self.control.release)


_MISBEHAVIOURS: Mapping[Blow, tuple[LangfuseFault, ...]] = {
    Blow.LANGFUSE_LOSES_ANSWERS: (hang(stored=True, times=3), cut(stored=True, times=3)),
    Blow.LANGFUSE_HANGS: (hang(stored=False, times=5),),
    Blow.LANGFUSE_FAILS: (answer(500, times=_MANY),),
    Blow.LANGFUSE_REFUSES: (answer(401, times=_MANY),),
    Blow.LANGFUSE_IS_SLOW: (delay(0.6, times=_MANY),),
    Blow.LANGFUSE_REFUSES_SCORES: (answer(403, route=Route.SCORES, times=_MANY),),
    Blow.LANGFUSE_LIMITS_READS: (
        cut(stored=True, times=1),
        *(answer(429, route=route, retry_after="0.5", times=_MANY) for route in _READS),
    ),
}


class Certificates:
    """Two authorities with a certificate each, of which one is in force: in the files that are named to everybody."""

    def __init__(self, directory: Path) -> None:
        self.authority, self.server = directory / "authority.pem", directory / "server.pem"
        self._authorities = [make_authority(directory, name) for name in ("second", "first")]
        self.renew()

    @property
    def mongod_arguments(self) -> Sequence[str]:
        """TLS for whoever wants it: the tailers do, the writer does not."""
        return (
            *("--tlsMode", "allowTLS", "--tlsAllowConnectionsWithoutCertificates"),
            *("--tlsCertificateKeyFile", str(self.server), "--tlsCAFile", str(self.authority)),
        )

    def renew(self) -> None:
        """Put the other one in force, as cert-manager does it; a running server shows it after its next start."""
        self._authorities.reverse()
        shutil.copy(self._authorities[0].authority, self.authority)
        shutil.copy(self._authorities[0].server, self.server)


@dataclass(slots=True)
class World:
    """All actors, and what was done to them."""

    replica_set: ReplicaSet
    replicas: tuple[Replica, Replica]
    langfuse: Langfuse
    certificates: Certificates
    done: Counter[Blow] = field(default_factory=Counter)

    async def suffer(self, fault: Fault) -> None:
        """Let a fault happen, last and be over."""
        self.done[fault.blow] += 1
        replica = self.replicas[fault.replica]
        match fault.blow:
            case Blow.KILL_TAILER:
                replica.send(signal.SIGKILL)
            case Blow.END_TAILER:
                replica.send(signal.SIGTERM)
            case Blow.STOP_TAILER:
                if replica.send(signal.SIGSTOP):
                    await asyncio.sleep(fault.hold_seconds)
                    replica.send(signal.SIGCONT)
            case Blow.RENEW_CERTIFICATES:
                self.certificates.renew()
                for member in self.replica_set.members:
                    await member.kill()
                    await member.restart()
            case Blow.KILL_LANGFUSE:
                await self.langfuse.kill()
                await asyncio.sleep(fault.hold_seconds)
                await self.langfuse.start()
            case Blow.STOP_LANGFUSE:
                assert self.langfuse.process is not None
                self.langfuse.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(fault.hold_seconds)
                self.langfuse.process.send_signal(signal.SIGCONT)
            case blow if blow in _MISBEHAVIOURS:
                await self.langfuse.misbehave(*_MISBEHAVIOURS[blow])
                await asyncio.sleep(fault.hold_seconds)
                await self.langfuse.behave()
            case _:
                await self._hit_member(fault)

    async def _hit_member(self, fault: Fault) -> None:
        member = await self._choose_member(fault.blow)
        if fault.blow in (Blow.STOP_PRIMARY, Blow.STOP_SECONDARY):
            await member.stop()
            await asyncio.sleep(fault.hold_seconds)
            await member.resume()
            return
        if fault.blow is Blow.END_PRIMARY:
            await member.terminate()
        else:
            await member.kill()
        await asyncio.sleep(fault.hold_seconds)
        await member.restart()

    async def _choose_member(self, blow: Blow) -> Member:
        if blow in (Blow.KILL_SECONDARY, Blow.STOP_SECONDARY):
            secondaries = await self.replica_set.secondaries()
            if secondaries:
                return secondaries[0]
        return await self.replica_set.primary()

    def describe_logs(self) -> str:
        """What the tailers said, all lives in the order of time; the end of it."""
        said = sorted(
            (line.partition('"time":"')[2][:24], f"{replica.name} {number}: {line}")
            for replica in self.replicas
            for number, daemon in enumerate(replica.lives, start=1)
            for line in daemon.output.splitlines()
        )
        return "\n".join(line for _, line in said)[-_LOG_CHARACTERS:]


@asynccontextmanager
async def open_world(
    replica_set: ReplicaSet, certificates: Certificates, settings: Mapping[str, str], directory: Path
) -> AsyncIterator[World]:
    """All actors at work."""
    langfuse = Langfuse(directory)
    await langfuse.start()
    both = {**settings, "LANGFUSE_HOST": langfuse.url}
    world = World(
        replica_set,
        (Replica("first", both, directory), Replica("second", both, directory)),
        langfuse,
        certificates,
    )
    running = [
        asyncio.create_task(replica.run(), name=f"{replica.name} tailer") for replica in world.replicas
    ]
    try:
        yield world
    finally:
        for replica in world.replicas:
            # A stopped process would not even see the signal to end.
            with suppress(ProcessLookupError):
                replica.send(signal.SIGCONT)
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
        if langfuse.process is not None and langfuse.process.returncode is None:
            os.kill(langfuse.process.pid, signal.SIGCONT)
            await langfuse.kill()
    for error in ended:
        if isinstance(error, Exception):
            raise error
