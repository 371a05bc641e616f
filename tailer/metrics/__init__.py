"""What the daemon measures: the catalogue of all metrics, their instruments, and how events move them."""

from tailer.metrics.from_events import Metrics

__all__ = ["Metrics"]
