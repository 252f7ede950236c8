"""Bodies of refusals: their words in any shape, and what they mean whatever their status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour, Request, models
from support.scenario import Scenario, answer_hello, body_of

S = "The harbour is closed."
WORDS: list[Any] = [
    {"errorMessage": S, "errorType": "x"},
    {"fault": {"faultstring": S}},
    {"message": {"text": S}},
    {"error": {"code": "x", "innererror": {"message": S}}},
    {"error": {"code": "BadRequest", "message": "", "details": [{"message": S}]}},
    {"error": {"message": None, "detail": S}},
    {"status": "error", "data": {"message": S}},
    {"errors": [{"title": "Bad", "detail": S}]},
    {"error": {"errors": [{"reason": "x", "message": S}]}},
    {"error": {"message": [S]}},
    {"errors": {"base": [S]}},
    {"title": "Bad Request", "status": 400, "errors": {"messages": [S]}},
    {"detail": {"message": {"error": S}}},
    {"meta": {"msg": S}},
    {"result": None, "success": False, "errors": [{"code": 1, "message": S}]},
    {"response": {"error": {"message": S}}},
    {"error": json.dumps({"message": S})},
    {"body": json.dumps({"error": S})},
    {"err": {"msg": S}},
    {"failure": S},
    {"output": {"message": S}},
    {"object": "error", "message": {"detail": [{"msg": S}]}},
    {"msg": {"en": S}},
    {"message": "", "detail": S},
    {"error": "", "message": S},
    {"error": {}, "message": S},
    {"error": 1, "message": S},
    [[{"error": S}]],
    b"event: error\ndata: " + S.encode() + b"\n\n",
    b"\r\n" + S.encode() + b"\r\n",
    f"{{'error': {{'message': '{S}'}}}}".encode(),
]
MISSING_MODELS: list[tuple[int, Any]] = [
    (404, {"error": 'model "m" not found, try pulling it first'}),
    (404, [{"error": {"code": 404, "message": "models/m is not found", "status": "NOT_FOUND"}}]),
    (400, {"error": {"message": "Model m not found", "code": "model_not_found"}}),
    (400, {"error": {"message": "Invalid model name passed in model=m.", "code": "400"}}),
    (400, {"error": {"message": "m is not a valid model ID", "code": 400}}),
    (400, {"object": "error", "message": "Invalid model: m", "type": "invalid_model"}),
    (400, {"error": {"message": "Model Not Exist", "type": "invalid_request_error"}}),
    (400, {"error": {"message": "The model `m` has been decommissioned.", "code": "x"}}),
    (422, {"detail": "Model 'm' is not available"}),
]
WRONG_KEYS: list[tuple[int, Any]] = [
    (401, {"error": {"message": "Nope."}}),
    (400, {"error": {"message": "API key not valid. Please pass a valid API key."}}),
    (400, {"message": "invalid api key"}),
    (400, {"base_resp": {"status_code": 2049, "status_msg": "invalid api key"}}),
    (400, {"error": {"message": "Nope.", "type": "authentication_error"}}),
    (400, {"error": {"message": "No API key provided", "code": "missing_api_key"}}),
    (200, {"error": {"message": "Invalid API key", "code": "invalid_api_key"}}),
]
#: What speaks of a model, and does not miss it.
OTHERS = [
    "This model does not support tools of this kind",
    "Invalid model output",
    "temperature is not supported with this model",
    "The model produced no valid JSON",
]


def refusing(behaviour: Behaviour) -> Any:
    def behave(request: Request) -> Behaviour:
        return behaviour if request.method == "POST" else models("a")

    return behave


def refused(world: Scenario, value: Any, status: int) -> list[tuple[int, dict[str, Any]]]:
    """What both APIs say of a refusal: the status, and the error."""
    world.upstream_answers(refusing(body_of(value, status)))
    outcomes = [ask(stream=False) for ask in (world.respond, world.chat)]
    world.upstream_answers(answer_hello)
    return [(one.http, one.error or {}) for one in outcomes]


def test_the_words_of_a_body_of_any_shape(world: Scenario) -> None:
    wrong = [
        (value, error)
        for value in WORDS
        for http, error in refused(world, value, 400)
        if http != 400 or S not in error["message"]
    ]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize(
    ("bodies", "code"),
    [(MISSING_MODELS, "model_not_found"), (WRONG_KEYS, "upstream_unauthorized")],
)
def test_what_a_refusal_means_whatever_its_status(
    world: Scenario, bodies: list[tuple[int, Any]], code: str
) -> None:
    wrong = [
        (value, error)
        for status, value in bodies
        for _, error in refused(world, value, status)
        if error["code"] != code
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_other_words_about_a_model_are_another_error(world: Scenario) -> None:
    for words in OTHERS:
        for http, error in refused(world, {"error": {"message": words}}, 400):
            assert (http, error["message"]) == (400, words)
            assert error["code"] != "model_not_found"
