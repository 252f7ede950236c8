"""``/metrics``, for Prometheus: what the server does, how fast, and what fails.

Labels are words of ours only: routes, methods, codes, and the models that were configured.
Nothing that a tenant says is one, so that there are few of them and none tells anything.

How many requests there were of each kind, and how long they took.

Counted without the library's locks, which every request would wait for four times: all that
counts is on one thread, and whoever asks is, too.
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

from antiphon.api.common.body import Receive, Scope, Send
from antiphon.errors import ModelError, StoreError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.store_protocols import StoreHealth

#: Seconds.
LATENCIES = (0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_BOUNDS = (*map(floatToGoString, LATENCIES), "+Inf")


class _Tally:
    """The requests that have all labels in common."""

    __slots__ = ("buckets", "count_tokens", "seconds")

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


_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_OTHER = "other"
#: By the first digit.
_CLASSES = tuple(f"{digit}xx" for digit in range(10))
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
#: An upstream may make up codes; so many are told apart.
_MOST_CODES = 50


class _Spoken(msgspec.Struct, frozen=True):
    """The series of one model."""

    first_word: Histogram
    input: Counter
    output: Counter


class Metrics:
    """The server's own registry. To be told of turns (``TurnService.watch_tools``).

    ``models`` gives the names that may be labels, ``health`` is that of the store.
    """

    def __init__(
        self, models: Callable[[], Collection[str]], health: StoreHealth | None = None
    ) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._models = models
        self._requests = Tallies(
            "antiphon_http_request",
            ("route", "method", "status"),
            "HTTP requests that were answered.",
            "Time from a request's head to the last byte of its answer.",
        )
        self._calls = Tallies(
            "antiphon_grpc_request",
            ("method", "status"),
            "gRPC calls that are over.",
            "Time from a call's message to its status.",
        )
        registry.register(self._requests)
        registry.register(self._calls)
        self._spoken: dict[str, _Spoken] = {}
        self._codes: set[str] = set()
        self._running = Gauge("antiphon_turns_running", "Turns that run now.", registry=registry)
        self._turns = Counter(
            "antiphon_turns", "Turns that are over.", ("status",), registry=registry
        )
        self._first_word = Histogram(
            "antiphon_first_token_seconds",
            "Time from a streamed turn's begin to the first of its answer.",
            ("model",),
            registry=registry,
            buckets=LATENCIES,
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
        self._unkept = Counter(
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

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is its template, None: there is none."""
        method = method if method in _METHODS else _OTHER
        self._requests.add((route or _OTHER, method, _CLASSES[status // 100]), seconds)

    def call(self, method: str | None, status: str, seconds: float) -> None:
        """Count a gRPC call; ``method`` is its path, None: nothing is served there."""
        self._calls.add((method or _OTHER, status), seconds)

    def began(self, turn: RunningTurn) -> None:
        self._running.inc()

    def over(self, turn: RunningTurn) -> None:
        self._running.dec()
        if turn.refused:
            return
        response = turn.response
        self._turns.labels(response.status if response else "failed").inc()
        if isinstance(turn.error, ModelError):
            self._upstream_errors.labels(self._code(turn.error.code)).inc()
        elif isinstance(turn.error, StoreError):
            self._unkept.inc()
        spoken = self._model(turn.initial_response.header.model)
        if turn.is_streamed and turn.first_token_at is not None:
            spoken.first_word.observe(turn.first_token_at - turn.started_at)
        if response and response.end and (usage := response.end.usage):
            spoken.input.inc(usage.input_tokens)
            spoken.output.inc(usage.output_tokens)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /metrics"""
        body = generate_latest(self.registry)
        headers = [
            (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _model(self, name: str) -> _Spoken:
        spoken = self._spoken.get(name)
        if spoken is None:
            # A catch-all upstream takes any name.
            label = name if name in self._models() else _OTHER
            spoken = _Spoken(
                self._first_word.labels(label),
                self._tokens.labels(label, "input"),
                self._tokens.labels(label, "output"),
            )
            if label == name:
                self._spoken[name] = spoken
        return spoken

    def _code(self, code: str) -> str:
        if code not in self._codes:
            if len(self._codes) >= _MOST_CODES or not _CODE.match(code):
                return _OTHER
            self._codes.add(code)
        return code
