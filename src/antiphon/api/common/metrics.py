"""``/metrics``, for Prometheus: what the server does, how fast, and what fails.

Labels are words of ours only: routes, methods, codes, and the models that were configured.
Nothing that a tenant says is one, so that there are few of them and none tells anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from antiphon.api.common.body import Receive, Scope, Send
from antiphon.api.common.request_metrics import LATENCIES, Reading, Tallies
from antiphon.errors import ModelError, StoreError
from antiphon.turn.running_turns import LiveTurn
from antiphon.turn.store_protocols import StoreHealth

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
    """The server's own registry. To be told of turns (``TurnService.watch``).

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

    def began(self, turn: LiveTurn) -> None:
        self._running.inc()

    def over(self, turn: LiveTurn) -> None:
        self._running.dec()
        if turn.refused:
            return
        response = turn.response
        self._turns.labels(response.status if response else "failed").inc()
        if isinstance(turn.error, ModelError):
            self._upstream_errors.labels(self._code(turn.error.code)).inc()
        elif isinstance(turn.error, StoreError):
            self._unkept.inc()
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
