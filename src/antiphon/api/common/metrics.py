"""Metrics: Prometheus counters, gauges and histograms of requests, turns and models; ``/metrics``.

Label values are routes, methods, codes and configured models only, never a tenant's text, so
that there are few of them and none discloses anything.

Requests are counted without prometheus-client's locks, of which each request would take four:
everything is counted and read on one thread.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.types import Receive, Scope, Send

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
        for labels, stats in self._stats.items():
            count.add_metric(labels, stats.count)
            below = zip(_BUCKET_BOUNDS, accumulate(stats.buckets), strict=True)
            seconds.add_metric(labels, list(below), stats.seconds)
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


_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_OTHER = "other"
#: By the first digit.
_STATUS_CLASSES = tuple(f"{digit}xx" for digit in range(10))
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
#: An upstream may make up codes; so many are told apart.
_MAX_CODES = 50


class _ModelMetrics(msgspec.Struct, frozen=True):
    """The series of one model."""

    first_token: Histogram
    input_tokens: Counter
    output_tokens: Counter


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
        self._by_model: dict[str, _ModelMetrics] = {}
        self._codes: set[str] = set()
        self._running = Gauge("antiphon_turns_running", "Turns that run now.", registry=registry)
        self._turns = Counter(
            "antiphon_turns", "Turns that are over.", ("status",), registry=registry
        )
        self._first_token = Histogram(
            "antiphon_first_token_seconds",
            "Time from a streamed turn's begin to the first of its answer.",
            ("model",),
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )
        self._tokens = Counter(
            "antiphon_tokens",
            "Tokens that models read (input) and wrote (output).",
            ("model", "direction"),
            registry=registry,
        )
        self._upstream_errors = Counter(
            "antiphon_model_errors",
            "Turns that failed because of the model, or the way to it.",
            ("code",),
            registry=registry,
        )
        self._unstored_turns = Counter(
            "antiphon_turns_unkept", "Turns that the store could not keep.", registry=registry
        )
        if health is not None:
            registry.register(
                Reading(
                    "antiphon_store_errors",
                    "Reads and writes that the store refused.",
                    lambda: health.refusals,
                )
            )

    def observe_request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is its template, None: there is none."""
        method = method if method in _METHODS else _OTHER
        self._requests.observe((route or _OTHER, method, _STATUS_CLASSES[status // 100]), seconds)

    def observe_call(self, method: str | None, status: str, seconds: float) -> None:
        """Count a gRPC call; ``method`` is its path, None: nothing is served there."""
        self._calls.observe((method or _OTHER, status), seconds)

    def turn_started(self, turn: RunningTurn) -> None:
        self._running.inc()

    def turn_ended(self, turn: RunningTurn) -> None:
        self._running.dec()
        if turn.is_rejected:
            return
        response = turn.response
        self._turns.labels(response.status if response else "failed").inc()
        if isinstance(turn.error, ModelError):
            self._upstream_errors.labels(self._code_label(turn.error.code)).inc()
        elif isinstance(turn.error, StoreError):
            self._unstored_turns.inc()
        model_metrics = self._metrics_for_model(turn.initial_response.header.model)
        if turn.is_streamed and turn.first_token_at is not None:
            model_metrics.first_token.observe(turn.first_token_at - turn.started_at)
        if response and response.end and (usage := response.end.usage):
            # A counter refuses what an upstream counts below zero.
            model_metrics.input_tokens.inc(max(0, usage.input_tokens))
            model_metrics.output_tokens.inc(max(0, usage.output_tokens))

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /metrics"""
        body = generate_latest(self.registry)
        headers = [
            (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _metrics_for_model(self, name: str) -> _ModelMetrics:
        model_metrics = self._by_model.get(name)
        if model_metrics is None:
            # A catch-all upstream takes any name.
            label = name if name in self._models() else _OTHER
            model_metrics = _ModelMetrics(
                self._first_token.labels(label),
                self._tokens.labels(label, "input"),
                self._tokens.labels(label, "output"),
            )
            if label == name:
                self._by_model[name] = model_metrics
        return model_metrics

    def _code_label(self, code: str) -> str:
        if code not in self._codes:
            if len(self._codes) >= _MAX_CODES or not _CODE.match(code):
                return _OTHER
            self._codes.add(code)
        return code
