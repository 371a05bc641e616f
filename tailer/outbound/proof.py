"""What the question at the start says of a destination: that it takes what we send, or that nothing answers."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Proven:
    """The keys are good; `project` is the project to which they belong, if the server names it."""

    project: str | None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nothing answers, or an answer says that the server is unwell. It may be better later. `detail` says more."""

    reason: str
    detail: str = field(default="", compare=False)

    @property
    def explained(self) -> str:
        """Reason and detail in one line."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
