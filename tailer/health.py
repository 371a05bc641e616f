"""What the daemon is doing, for the probes: is it alive, is it ready, and if not, why."""

from dataclasses import dataclass, field
from enum import StrEnum

from tailer.core.stream.hints import Stream


class State(StrEnum):
    """The states of a daemon (`tailer_state`)."""

    STARTING = "starting"
    STANDBY = "standby"
    STREAMING = "streaming"
    HALTED = "halted"
    STOPPING = "stopping"


_READY = frozenset({State.STREAMING, State.STANDBY})
"""A standby does everything that it should: its orchestrator must neither restart it nor wait for it."""


_FAULT_SECONDS = 15.0
"""What is tried again is reported at least every five seconds: a fault that is not reported for so long is over."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What the daemon says of itself to the probes: its state, and why it is not ready, in words for an operator."""

    state: str
    problems: tuple[str, ...]
    gaps: int
    uptime_seconds: float
    troubles: tuple[str, ...] = ()


@dataclass(slots=True)
class Health:
    """Set by the daemon's tasks, read by the web server; times are of the caller's monotonic clock.

    `loop_seconds` is when the event loop last ran the sampler; `answered_seconds` when each stream last answered;
    `looked_seconds` is when a standby last saw the lease, None on the active instance;
    `destinations` is how many there are; `refusals` say, by destination, what to do where one refuses what is sent;
    `absences` how long one of several has accepted nothing, and how much is owed to it; `gaps` counts stretches of lost
    history;
    `missing_shards` names those without an active instance;
    `faults` holds what an operator must mend, by subject, with when it was last reported.
    """

    started_seconds: float
    loop_seconds: float
    state: State = State.STARTING
    answered_seconds: dict[Stream, float] = field(default_factory=dict)
    looked_seconds: float | None = None
    destinations: int = 1
    refusals: dict[str, str] = field(default_factory=dict)
    absences: dict[str, tuple[float, int]] = field(default_factory=dict)
    gaps: int = 0
    missing_shards: tuple[str, ...] = ()
    faults: dict[str, tuple[float, str]] = field(default_factory=dict)

    def begin_term(self) -> None:
        """This instance becomes the active one or stops being it: statements about the time before no longer count."""
        self.state = State.STARTING
        self.looked_seconds = None
        self.answered_seconds.clear()
        self.refusals = {}
        self.absences = {}

    def note_fault(self, subject: str, remedy: str, now: float) -> None:
        """Something does not work until an operator mends it; reported again and again for as long as it lasts."""
        self.faults[subject] = (now, remedy)

    def problems(self, now: float, *, patience_seconds: float) -> list[str]:
        """Why the daemon is not ready, in words for an operator; empty when it is ready."""
        found = []
        if self.state not in _READY:
            found.append(f"the daemon is {self.state.value}")
        for stream, answered in self.answered_seconds.items():
            silent = now - answered
            if silent > patience_seconds:
                found.append(
                    f"stream {stream.value} has not answered for {silent:.0f} s: MongoDB may be away"
                )
        found += [
            f"{subject}: {remedy}"
            for subject, (told, remedy) in self.faults.items()
            if now - told <= _FAULT_SECONDS
        ]
        if self.looked_seconds is not None and now - self.looked_seconds > patience_seconds:
            silent = now - self.looked_seconds
            found.append(f"the state database has not answered for {silent:.0f} s: no standby can take over")
        troubles = self.troubles()
        if len(troubles) >= self.destinations:
            found += troubles
        return found

    def troubles(self) -> list[str]:
        """Which destinations refuse what is sent, or accept nothing, in words for an operator. While one of several
        takes its turns, the daemon does everything that it should, and is ready."""
        refused = [f"{name} refuses what is sent: {remedy}" for name, remedy in self.refusals.items()]
        away = [
            f"destination {name} has accepted nothing for {seconds:.0f} s (turns and changes kept for it: {owed})"
            for name, (seconds, owed) in self.absences.items()
        ]
        return refused + away

    def condition(self, now: float, *, patience_seconds: float) -> Condition:
        """What the status page says of all this."""
        return Condition(
            state=self.state.value,
            problems=tuple(self.problems(now, patience_seconds=patience_seconds)),
            gaps=self.gaps,
            uptime_seconds=now - self.started_seconds,
            troubles=tuple(self.troubles()),
        )
