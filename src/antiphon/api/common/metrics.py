"""Metrics: Prometheus counters, gauges and histograms of requests, turns and models; ``/metrics``.

Label values are routes, methods, codes and configured models only, never a tenant's text, so
that there are few of them and none discloses anything. ``worker_metrics`` joins several processes'.

Nothing is counted by prometheus-client, whose counters take a lock each:
everything is counted and read on one thread.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from antiphon.errors import ModelError, StoreError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.store_protocols import StoreHealth

#: Seconds.
LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_BUCKET_BOUNDS = (*map(floatToGoString, LATENCY_BUCKETS), "+Inf")


class _RequestStats:
    """The requests that have all labels in common."""

    __slots__ = ("buckets", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        #: Requests in each of ``LATENCY_BUCKETS``, then the slower ones; not cumulative.
        self.buckets = [0] * len(_BUCKET_BOUNDS)


class RequestMetrics(Collector):
    """``{name}s_total`` and the histogram ``{name}_seconds``, both with these labels.

    ``count_help`` and ``seconds_help`` describe them. Callers must keep the number of labels small.
    """

    def __init__(
        self, name: str, labels: tuple[str, ...], count_help: str, seconds_help: str
    ) -> None:
        self._name = name
        self._labels = labels
        self._count_help = count_help
        self._seconds_help = seconds_help
        self._stats: dict[tuple[str, ...], _RequestStats] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        """One more request."""
        stats = self._stats.get(labels)
        if stats is None:
            stats = self._stats[labels] = _RequestStats()
        stats.count += 1
        stats.seconds += seconds
        stats.buckets[bisect_left(LATENCY_BUCKETS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """Both metrics, for Prometheus."""
        count = CounterMetricFamily(f"{self._name}s", self._count_help, labels=self._labels)
        seconds = HistogramMetricFamily(
            f"{self._name}_seconds", self._seconds_help, labels=self._labels
        )
        for labels, stats in list(self._stats.items()):
            count.add_metric(labels, stats.count)
            below = zip(_BUCKET_BOUNDS, accumulate(stats.buckets), strict=True)
            seconds.add_metric(labels, list(below), stats.seconds)
        yield count
        yield seconds


class LabelledCounter(Collector):
    """The counter ``{name}_total`` with these labels. Callers must keep their number small."""

    def __init__(self, name: str, labels: tuple[str, ...], what: str) -> None:
        self._name = name
        self._labels = labels
        self._what = what
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, labels: tuple[str, ...], amount: float = 1) -> None:
        """Count more."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def collect(self) -> Iterator[Metric]:
        """The counter, for Prometheus."""
        family = CounterMetricFamily(self._name, self._what, labels=self._labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        yield family


class Reading(Collector):
    """A metric that is counted elsewhere: ``read`` gives its value; ``family`` says what it is."""

    def __init__(
        self,
        family: type[CounterMetricFamily | GaugeMetricFamily],
        name: str,
        what: str,
        read: Callable[[], float],
    ) -> None:
        self._family = family
        self._name = name
        self._what = what
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The value as it is now."""
        yield self._family(self._name, self._what, value=self._read())


class _WorkerRegistry(CollectorRegistry):
    """A registry with the number of a worker as a label of everything."""

    def __init__(self, registry: CollectorRegistry, worker: int) -> None:
        super().__init__()
        self._registry = registry
        self._worker = str(worker)

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            samples = [
                sample._replace(labels={**sample.labels, "worker": self._worker})
                for sample in family.samples
            ]
            labelled = Metric(family.name, family.documentation, family.type, family.unit)
            labelled.samples = samples
            yield labelled


_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_OTHER = "other"
#: By the first digit.
_STATUS_CLASSES = tuple(f"{digit}xx" for digit in range(10))
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
#: An upstream may make up codes; so many are told apart.
_MAX_CODES = 50


class Metrics:
    """The server's own registry. It observes turns (``TurnService.add_observer``).

    ``models`` gives the names that may be labels, ``health`` is that of the store.
    """

    def __init__(
        self, models: Callable[[], Collection[str]], health: StoreHealth | None = None
    ) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._models = models
        self._requests = RequestMetrics(
            "antiphon_http_request",
            ("route", "method", "status"),
            "HTTP requests that were answered.",
            "Time from a request's head to the last byte of its answer.",
        )
        self._calls = RequestMetrics(
            "antiphon_grpc_request",
            ("method", "status"),
            "gRPC calls that are over.",
            "Time from a call's message to its status.",
        )
        registry.register(self._requests)
        registry.register(self._calls)
        #: The labels of models by their names.
        self._model_labels: dict[str, str] = {}
        self._codes: set[str] = set()
        self._running = self._unstored_turns = 0
        self._turns = LabelledCounter("antiphon_turns", ("status",), "Turns that are over.")
        self._first_token = Histogram(
            "antiphon_first_token_seconds",
            "Time from a streamed turn's begin to the first of its answer.",
            ("model",),
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )
        self._tokens = LabelledCounter(
            "antiphon_tokens",
            ("model", "direction"),
            "Tokens that models read (input) and wrote (output).",
        )
        self._upstream_errors = LabelledCounter(
            "antiphon_model_errors",
            ("code",),
            "Turns that failed because of the model, or the way to it.",
        )
        for counter in (self._turns, self._tokens, self._upstream_errors):
            registry.register(counter)
        self._add_readings(health)

    def _add_readings(self, health: StoreHealth | None) -> None:
        readings: list[Collector] = [
            Reading(
                GaugeMetricFamily,
                "antiphon_turns_running",
                "Turns that run now.",
                lambda: self._running,
            ),
            Reading(
                CounterMetricFamily,
                "antiphon_turns_unkept",
                "Turns that the store could not keep.",
                lambda: self._unstored_turns,
            ),
        ]
        if health is not None:
            readings.append(
                Reading(
                    CounterMetricFamily,
                    "antiphon_store_errors",
                    "Reads and writes that the store refused.",
                    lambda: health.refusals,
                )
            )
        for reading in readings:
            self.registry.register(reading)

    def observe_request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is its template, None: there is none."""
        method = method if method in _METHODS else _OTHER
        self._requests.observe((route or _OTHER, method, _STATUS_CLASSES[status // 100]), seconds)

    def observe_call(self, method: str | None, status: str, seconds: float) -> None:
        """Count a gRPC call; ``method`` is its path, None: nothing is served there."""
        self._calls.observe((method or _OTHER, status), seconds)

    def turn_started(self, turn: RunningTurn) -> None:
        self._running += 1

    def turn_ended(self, turn: RunningTurn) -> None:
        self._running -= 1
        if turn.is_rejected:
            return
        response, error = turn.response, turn.error
        end = response.end if response else None
        self._turns.add((end.status if end else "failed",))
        if isinstance(error, ModelError):
            self._upstream_errors.add((self._code_label(error.code),))
        elif isinstance(error, StoreError):
            self._unstored_turns += 1
        name = turn.initial_response.header.model
        model = self._model_labels.get(name) or self._model_label(name)
        if turn.is_streamed and turn.first_token_at is not None:
            self._first_token.labels(model).observe(turn.first_token_at - turn.started_at)
        if end is not None and (usage := end.usage):
            # Nobody can be told a counter that falls, as an upstream may count below zero.
            self._tokens.add((model, "input"), max(0, usage.input_tokens))
            self._tokens.add((model, "output"), max(0, usage.output_tokens))

    async def render(self, worker: int | None = None) -> bytes:
        """All metrics, as Prometheus reads them; those of a worker say so."""
        registry = self.registry if worker is None else _WorkerRegistry(self.registry, worker)
        # In a thread: hundreds of series take milliseconds. So what is collected is copied first.
        return await asyncio.to_thread(generate_latest, registry)

    def _model_label(self, name: str) -> str:
        # A catch-all upstream takes any name.
        if name not in self._models():
            return _OTHER
        self._model_labels[name] = name
        return name

    def _code_label(self, code: str) -> str:
        if code not in self._codes:
            if len(self._codes) >= _MAX_CODES or not _CODE.match(code):
                return _OTHER
            self._codes.add(code)
        return code
