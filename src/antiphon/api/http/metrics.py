"""``/metrics``, for Prometheus: what the server does, how fast, and what fails.

Labels are words of ours only: routes, methods, codes, and the models that were configured.
Nothing that a tenant says is one, so that there are few of them and none tells anything.
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

from antiphon.api.http.body import Receive, Scope, Send
from antiphon.errors import ModelError, StoreError
from antiphon.turn.live import LiveTurn

#: Seconds.
_LATENCIES = (0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_OTHER = "other"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
#: An upstream may make up codes; so many are told apart.
_MOST_CODES = 50


class _Tally:
    """The answers of one route, method and status class.

    Counted without the library's locks, which every request would wait for four times:
    all that counts is on one thread, and whoever asks is, too.
    """

    __slots__ = ("buckets", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        #: How many took up to each of ``_LATENCIES`` but more than the one before; then the rest.
        self.buckets = [0] * (len(_LATENCIES) + 1)


class _Answers(Collector):
    """All tallies, as Prometheus wants them."""

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str, int], _Tally] = {}

    def collect(self) -> Iterator[Metric]:
        count = CounterMetricFamily(
            "antiphon_http_requests",
            "HTTP requests that were answered.",
            labels=("route", "method", "status"),
        )
        seconds = HistogramMetricFamily(
            "antiphon_http_request_seconds",
            "Time from a request's head to the last byte of its answer.",
            labels=("route", "method", "status"),
        )
        for (route, method, hundreds), tally in self.tallies.items():
            labels = (route, method, f"{hundreds}xx")
            count.add_metric(labels, tally.count)
            bounds = [*map(floatToGoString, _LATENCIES), "+Inf"]
            below = zip(bounds, accumulate(tally.buckets), strict=True)
            seconds.add_metric(labels, list(below), tally.seconds)
        yield count
        yield seconds


class _Spoken(msgspec.Struct, frozen=True):
    """The series of one model."""

    first_word: Histogram
    input: Counter
    output: Counter


class Metrics:
    """The server's own registry. To be told of turns (``TurnService.watch``).

    ``models`` gives the names that may be labels.
    """

    def __init__(self, models: Callable[[], Collection[str]]) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._models = models
        self._answers = _Answers()
        registry.register(self._answers)
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
            buckets=_LATENCIES,
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
        self._store_errors = Counter(
            "antiphon_store_errors", "Turns that the store could not keep.", registry=registry
        )

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is its template, None: there is none."""
        tallies, key = self._answers.tallies, (route or _OTHER, method, status // 100)
        tally = tallies.get(key)
        if tally is None:
            if method not in _METHODS:
                key = (key[0], _OTHER, key[2])
            tally = tallies.setdefault(key, _Tally())
        tally.count += 1
        tally.seconds += seconds
        tally.buckets[bisect_left(_LATENCIES, seconds)] += 1

    def began(self, turn: LiveTurn) -> None:
        self._running.inc()

    def over(self, turn: LiveTurn) -> None:
        self._running.dec()
        response = turn.response
        self._turns.labels(response.status if response else "failed").inc()
        if isinstance(turn.error, ModelError):
            self._upstream_errors.labels(self._code(turn.error.code)).inc()
        elif isinstance(turn.error, StoreError):
            self._store_errors.inc()
        spoken = self._model(turn.opening.header.model)
        if turn.streamed and turn.spoke_at is not None:
            spoken.first_word.observe(turn.spoke_at - turn.began_at)
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
