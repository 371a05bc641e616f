"""What an examination finds: a verdict, what was seen, and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """PASS: as it should be. WARN: it works, with a risk. FAIL: it does not work. SKIP: it could not be checked."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, the verdict, what was seen, and for WARN and FAIL the remedy; never a secret or content."""

    check: str
    verdict: Verdict
    seen: str
    remedy: str | None = None


def passed(check: str, seen: str) -> Finding:
    """As it should be."""
    return Finding(check, Verdict.PASS, seen)


def warned(check: str, seen: str, remedy: str) -> Finding:
    """It works, with a risk."""
    return Finding(check, Verdict.WARN, seen, remedy)


def failed(check: str, seen: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.FAIL, seen, remedy)


def skipped(check: str, why: str) -> Finding:
    """It could not be checked."""
    return Finding(check, Verdict.SKIP, why)


def worst(findings: Sequence[Finding]) -> Verdict:
    """FAIL before WARN before PASS; another finding has the reason of a SKIP."""
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in (Verdict.FAIL, Verdict.WARN) if verdict in verdicts), Verdict.PASS)
