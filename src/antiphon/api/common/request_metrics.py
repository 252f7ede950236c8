"""How many requests there were of each kind, and how long they took.

Counted without the library's locks, which every request would wait for four times: all that
counts is on one thread, and whoever asks is, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

#: Seconds.
LATENCIES = (0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_BOUNDS = (*map(floatToGoString, LATENCIES), "+Inf")


class _Tally:
    """The requests that have all labels in common."""

    __slots__ = ("buckets", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        #: How many took up to each of ``LATENCIES`` but more than the one before; then the rest.
        self.buckets = [0] * len(_BOUNDS)


class Tallies(Collector):
    """``{name}s_total`` and the histogram ``{name}_seconds``, both with these labels.

    ``counted`` and ``timed`` say what they are. Whoever adds sees to it that labels are few.
    """

    def __init__(self, name: str, labels: tuple[str, ...], counted: str, timed: str) -> None:
        self._name = name
        self._labels = labels
        self._counted = counted
        self._timed = timed
        self._tallies: dict[tuple[str, ...], _Tally] = {}

    def add(self, labels: tuple[str, ...], seconds: float) -> None:
        """One more request."""
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = _Tally()
        tally.count += 1
        tally.seconds += seconds
        tally.buckets[bisect_left(LATENCIES, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """All tallies, as Prometheus wants them."""
        count = CounterMetricFamily(f"{self._name}s", self._counted, labels=self._labels)
        seconds = HistogramMetricFamily(f"{self._name}_seconds", self._timed, labels=self._labels)
        for labels, tally in self._tallies.items():
            count.add_metric(labels, tally.count)
            below = zip(_BOUNDS, accumulate(tally.buckets), strict=True)
            seconds.add_metric(labels, list(below), tally.seconds)
        yield count
        yield seconds


class Reading(Collector):
    """The counter ``{name}_total``, which is counted elsewhere: ``read`` gives its value."""

    def __init__(self, name: str, what: str, read: Callable[[], float]) -> None:
        self._name = name
        self._what = what
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The value as it is now."""
        yield CounterMetricFamily(self._name, self._what, value=self._read())
