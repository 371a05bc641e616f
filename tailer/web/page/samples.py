"""The last hour of a daemon in bounded memory, and its course in equal steps for a plot.

An unknown figure leaves a hole, and so does a time without samples: the plot shows only what was seen.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor
from typing import Final

SAMPLE_SECONDS: Final = 5.0
"""How often a sample is kept. 5: an hour has 720 samples, and a plot of five minutes has a sample for each step."""
HISTORY_SECONDS: Final = 3600.0
STEPS: Final = 60
_SPANS: Final = (300.0, 900.0, HISTORY_SECONDS)
"""The spans of a plot. The shortest that holds all samples is shown, so that the first minutes are not a sliver at its
edge."""
_HOLE_SECONDS: Final = 3 * SAMPLE_SECONDS
"""If samples are further apart than this, the time between them is a hole."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of a moment, by the caller's monotonic clock. The totals only grow. None: unknown at that moment."""

    at_seconds: float
    read_lag_seconds: float | None = None
    export_lag_seconds: float | None = None
    events_total: float | None = None
    traces_total: float | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """The last `span_seconds` in `STEPS` equal steps, oldest first: the highest lags, and numbers per minute.

    The last step is still running. None: unknown for that step.
    """

    span_seconds: float
    step_seconds: float
    read_lag_seconds: tuple[float | None, ...]
    export_lag_seconds: tuple[float | None, ...]
    events_per_minute: tuple[float | None, ...]
    traces_per_minute: tuple[float | None, ...]


class History:
    """A ring of samples. However many are added, it holds at most an hour of them."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(HISTORY_SECONDS / SAMPLE_SECONDS) + 1)

    def __len__(self) -> int:
        return len(self._samples)

    def is_due(self, now_seconds: float) -> bool:
        """Whether it is time for the next sample."""
        return not self._samples or now_seconds - self._samples[-1].at_seconds >= SAMPLE_SECONDS

    def add(self, sample: Sample) -> None:
        """Keep a sample, unless it is not later than the last one."""
        if not self._samples or sample.at_seconds > self._samples[-1].at_seconds:
            self._samples.append(sample)

    def course(self, now_seconds: float) -> Course:
        """What a plot shows at this moment, which is not before the last sample."""
        oldest = self._samples[0].at_seconds if self._samples else now_seconds
        span = next((span for span in _SPANS if now_seconds - oldest <= span), HISTORY_SECONDS)
        step = span / STEPS
        # Steps end at multiples of their length, so that a bar stays what it was when the plot moves on.
        begin = (floor(now_seconds / step) + 1) * step - span
        samples = [sample for sample in self._samples if sample.at_seconds > begin - _HOLE_SECONDS]
        return Course(
            span_seconds=span,
            step_seconds=step,
            read_lag_seconds=_highest(samples, lambda sample: sample.read_lag_seconds, begin, step),
            export_lag_seconds=_highest(samples, lambda sample: sample.export_lag_seconds, begin, step),
            events_per_minute=_rates(samples, lambda sample: sample.events_total, begin, step),
            traces_per_minute=_rates(samples, lambda sample: sample.traces_total, begin, step),
        )


_Figure = Callable[[Sample], float | None]


def _highest(
    samples: Sequence[Sample], figure: _Figure, begin: float, step: float
) -> tuple[float | None, ...]:
    """The highest value of each step. A sample counts from the step in which it falls until the next sample."""
    found: list[float | None] = [None] * STEPS
    for sample, until in _reaches(samples):
        value = figure(sample)
        if value is None:
            continue
        first, last = int((sample.at_seconds - begin) // step), int((until - begin) // step)
        for index in range(max(0, first), min(STEPS - 1, last) + 1):
            known = found[index]
            found[index] = value if known is None else max(known, value)
    return tuple(found)


def _reaches(samples: Sequence[Sample]) -> Iterator[tuple[Sample, float]]:
    """Each sample with the time until which it counts: the next sample, unless that came too late."""
    for sample, following in pairwise(samples):
        is_hole = following.at_seconds - sample.at_seconds > _HOLE_SECONDS
        yield sample, sample.at_seconds if is_hole else following.at_seconds
    if samples:
        yield samples[-1], samples[-1].at_seconds


def _rates(samples: Sequence[Sample], total: _Figure, begin: float, step: float) -> tuple[float | None, ...]:
    """The growth of a total per minute in each step, spread evenly between two samples."""
    grown, covered = [0.0] * STEPS, [0.0] * STEPS
    for earlier, later in pairwise(samples):
        before, after = total(earlier), total(later)
        lasts = later.at_seconds - earlier.at_seconds
        if before is None or after is None or lasts > _HOLE_SECONDS:
            continue
        first = max(0, int((earlier.at_seconds - begin) // step))
        last = min(STEPS - 1, int((later.at_seconds - begin) // step))
        for index in range(first, last + 1):
            low, high = begin + index * step, begin + (index + 1) * step
            overlap = max(0.0, min(high, later.at_seconds) - max(low, earlier.at_seconds))
            grown[index] += (after - before) * overlap / lasts
            covered[index] += overlap
    # Less than half a sample says nothing about a minute.
    return tuple(
        more / seconds * 60 if seconds >= SAMPLE_SECONDS / 2 else None
        for more, seconds in zip(grown, covered, strict=True)
    )
