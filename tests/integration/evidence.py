"""Moved to `tests.evidence`; here until every test imports it from there."""

from tests.evidence import (
    Events,
    Reading,
    make_item,
    make_trace,
    observation_ids,
    probes,
    trace_ids,
)

__all__ = ["Events", "Reading", "make_item", "make_trace", "observation_ids", "probes", "trace_ids"]
