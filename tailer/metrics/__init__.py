"""What the daemon measures: the catalogue of all metrics, their instruments, and how events move them."""

from tailer.metrics.recording import Metrics

__all__ = ["Metrics"]
