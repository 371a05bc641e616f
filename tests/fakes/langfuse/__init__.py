"""A strict Langfuse server for tests: see `server` for what it is and `faults` for how it fails on demand."""

from tests.fakes.langfuse.client import ControlClient
from tests.fakes.langfuse.faults import (
    Effect,
    Fault,
    Route,
    answer,
    bad_span,
    cut,
    delay,
    garbage,
    hang,
    html_page,
    reset,
    too_large,
)
from tests.fakes.langfuse.releases import CURRENT, EVENTS_ONLY, LEGACY, SELF_HOSTED_3, Release
from tests.fakes.langfuse.rules import Rules, Violation
from tests.fakes.langfuse.server import FakeLangfuse
from tests.fakes.langfuse.store import StoredSpan

__all__ = [
    "CURRENT",
    "EVENTS_ONLY",
    "LEGACY",
    "SELF_HOSTED_3",
    "ControlClient",
    "Effect",
    "FakeLangfuse",
    "Fault",
    "Release",
    "Route",
    "Rules",
    "StoredSpan",
    "Violation",
    "answer",
    "bad_span",
    "cut",
    "delay",
    "garbage",
    "hang",
    "html_page",
    "reset",
    "too_large",
]
