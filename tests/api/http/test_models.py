"""``/v1/models``."""

from __future__ import annotations

from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel
from antiphon.turn.protocols import ModelInfo
from support.http_server import serving

MODELS = {
    "first": ScriptedModel(info=ModelInfo("first", owned_by="somebody")),
    "org/second:7b": ScriptedModel(),
}


def test_the_models_with_the_default_first() -> None:
    with serving(MODELS) as server:
        answer = server.get("/v1/models")
        assert answer.status == 200
        assert answer.json == {
            "object": "list",
            "data": [
                {"id": "first", "object": "model", "created": 0, "owned_by": "somebody"},
                {"id": "org/second:7b", "object": "model", "created": 0, "owned_by": "antiphon"},
            ],
        }
        for model in answer.json["data"]:
            assert server.get(f"/v1/models/{model['id']}").json == model
        assert server.get("/v1/models/org%2Fsecond:7b").json["id"] == "org/second:7b"


def test_a_model_that_is_not_there() -> None:
    with serving(MODELS) as server:
        answer = server.get("/v1/models/third")
        assert answer.status == 404
        assert (answer.error["code"], answer.error["param"]) == ("model_not_found", "model")
        assert answer.error["type"] == "invalid_request_error"


def test_the_catalog_is_queried_each_time() -> None:
    with serving(MODELS) as server:
        server.service.models = ModelRegistry({"other": ScriptedModel()}, default="other")
        assert [model["id"] for model in server.get("/v1/models").json["data"]] == ["other"]
