"""What Prometheus is told."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest
from prometheus_client import generate_latest

from antiphon.api.common.metrics import Metrics
from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT, TurnRequest, Usage
from antiphon.errors import ModelError, StoreError, UpstreamRateLimitError
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, fail, report_usage, say, wait
from antiphon.turn.service import TurnService
from support.http_server import serving
from support.prometheus_samples import metric_value
from support.turn_service import GatedStore, run_ready_tasks, turn_request


def test_requests_by_route_method_and_status_class() -> None:
    with serving() as server:
        made = server.respond().json["id"]
        server.respond(input=[])
        server.post("/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}])
        server.get(f"/v1/responses/{made}")
        server.get(f"/v1/responses/{made}")
        server.get("/v1/responses/resp_" + "0" * 32)
        server.get("/private/words")
        server.request("BREW", f"/v1/responses/{made}")
        counted = {
            labels: metric_value(
                server, "http_requests_total", route=labels[0], method=labels[1], status=labels[2]
            )
            for labels in (
                ("/v1/responses", "POST", "2xx"),
                ("/v1/responses", "POST", "4xx"),
                ("/v1/chat/completions", "POST", "2xx"),
                ("/v1/responses/{id}", "GET", "2xx"),
                ("/v1/responses/{id}", "GET", "4xx"),
                ("other", "GET", "4xx"),
            )
        }
        assert list(counted.values()) == [1, 1, 1, 2, 1, 1]
        asked = {"route": "/v1/responses", "method": "POST", "status": "2xx"}
        assert metric_value(server, "http_request_seconds_count", **asked) == 1
        assert 0 < metric_value(server, "http_request_seconds_sum", **asked) < 30
        assert metric_value(server, "http_request_seconds_bucket", le="+Inf", **asked) == 1
        assert "words" not in server.get("/metrics").body.decode()
        assert made not in server.get("/metrics").body.decode()


def test_turns_tokens_and_the_first_word() -> None:
    model = ScriptedModel(
        [say("a", "b") + report_usage(Usage(7, 3)), say("c") + report_usage(Usage(10, 1))]
    )
    with serving(model) as server:
        server.respond(stream=True)
        server.respond()
        assert metric_value(server, "turns_total", status="completed") == 2
        assert metric_value(server, "tokens_total", model="scripted", direction="input") == 17
        assert metric_value(server, "tokens_total", model="scripted", direction="output") == 4
        # Only who reads along waits for a first word.
        assert metric_value(server, "first_token_seconds_count", model="scripted") == 1


def test_running_turns() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    with serving(ScriptedModel([say("a") + wait(opened, reached)])) as server:
        with closing(server.connect()) as connection:
            connection.request("POST", "/v1/responses", '{"input":"Hi","stream":true}')
            stream = connection.getresponse()
            server.wait(reached)
            assert metric_value(server, "turns_running") == 1
            server.set(opened)
            stream.read()
        assert metric_value(server, "turns_running") == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamRateLimitError("Slow."), "rate_limit_exceeded"),
        (ModelError("No.", code="upstream_disconnected"), "upstream_disconnected"),
        (ModelError("No.", code="What a tenant said!"), "other"),
    ],
)
def test_upstream_errors_by_code(error: ModelError, code: str) -> None:
    with serving(ScriptedModel([fail(error)])) as server:
        server.respond()
        assert metric_value(server, "model_errors_total", code=code) == 1
        assert metric_value(server, "turns_total", status="failed") == 1


def test_a_store_that_cannot_keep_a_turn() -> None:
    async def make() -> GatedStore:
        store = GatedStore()
        store.ends.error = StoreError("Full.")
        return store

    with serving(store=make) as server:
        assert server.respond().status == 503
        assert metric_value(server, "turns_unkept_total") == 1


def test_a_client_makes_up_no_series() -> None:
    metrics = Metrics(lambda: {"known"})
    for number in range(1000):
        metrics.observe_request(None, f"M{number}", 404, 0.0)
    text = generate_latest(metrics.registry).decode()
    assert text.count("antiphon_http_requests_total{") == 1
    assert 'method="other"' in text


def test_how_long_requests_took() -> None:
    metrics = Metrics(set)
    for seconds in (0.0, 0.002, 0.0021, 1.0, 299.0, 301.0):
        metrics.observe_request("/r", "GET", 200, seconds)
    labels = {"route": "/r", "method": "GET", "status": "2xx"}

    def of(name: str, **more: str) -> float | None:
        found: float | None = metrics.registry.get_sample_value(name, {**labels, **more})
        return found

    name = "antiphon_http_request_seconds"
    below = {le: of(f"{name}_bucket", le=le) for le in ("0.002", "0.005", "1.0", "300.0", "+Inf")}
    assert below == {"0.002": 2, "0.005": 3, "1.0": 4, "300.0": 5, "+Inf": 6}
    assert of(f"{name}_count") == 6
    assert of(f"{name}_sum") == pytest.approx(601.0041)


def test_an_upstream_makes_up_a_few_series_only() -> None:
    errors = [fail(ModelError("No.", code=f"code_{number}")) for number in range(80)]
    with serving(ScriptedModel(errors)) as server:
        for _ in errors:
            server.respond(store=False)
        assert metric_value(server, "model_errors_total", code="code_49") == 1
        assert metric_value(server, "model_errors_total", code="other") == 30


def test_a_turn_that_is_tried_again_unseen_counts_once() -> None:
    async def main() -> str:
        store, model = GatedStore(), ScriptedModel()
        service = TurnService(store, ModelRegistry({"known": model}, default="known"))
        metrics = Metrics(lambda: {"known"})
        first = await service.store_turn(turn_request("Secret."))
        second = await service.store_turn(turn_request("Thanks.", after=first))
        service.registry.add_observer(metrics)
        store.begins.close()
        starting = asyncio.create_task(service.start(turn_request("And?", after=second)))
        await run_ready_tasks()
        await service.delete(DEFAULT_TENANT, first)
        store.begins.open()
        await (await starting).result()
        assert len(model.calls) == 2, "the first call was with what is erased now"
        await service.close()
        return generate_latest(metrics.registry).decode()

    text = asyncio.run(main())
    assert 'antiphon_turns_total{status="completed"} 1.0' in text
    assert 'status="failed"' not in text
    assert "antiphon_turns_running 0.0" in text


async def test_an_unconfigured_model_is_another() -> None:
    scripted = ScriptedModel()
    models = ModelRegistry({"known": scripted}, default="known", fallback=scripted)
    service = TurnService(GatedStore(), models)
    metrics = Metrics(lambda: {name for name, _ in models.items()})
    service.registry.add_observer(metrics)
    for name in ("known", "a tenant's word"):
        turn = await service.start(TurnRequest((Message("user", "Hi"),), model=name))
        await turn.result()
    await service.close()
    text = generate_latest(metrics.registry).decode()
    assert 'antiphon_tokens_total{direction="input",model="known"} 1.0' in text
    assert 'antiphon_tokens_total{direction="input",model="other"} 1.0' in text
    assert "a tenant's word" not in text
