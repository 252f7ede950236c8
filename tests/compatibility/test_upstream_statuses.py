"""What an upstream's error is to a client: by its words, whatever status and shape it has."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from antiphon.models.retry import RetryPolicy
from support.scenario import body_of, scenario


class Refusal(NamedTuple):
    """An upstream's answer, and the error: its status, its code, and how often was asked."""

    status: int
    body: Any
    http: int
    code: str
    tries: int = 1


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


QUOTA = "You exceeded your current quota, please check your plan and billing details."
PAY, RATE, KEY = "upstream_payment_required", "rate_limit_exceeded", "upstream_unauthorized"
REFUSALS = {
    # An account that is empty stays so, whatever the status.
    "quota-by-code": Refusal(429, error(QUOTA, code="insufficient_quota"), 429, RATE),
    "quota-by-type": Refusal(
        429,
        error("You have no credits.", type="insufficient_quota", code="credit_balance_exhausted"),
        429,
        RATE,
    ),
    "quota-of-moonshot": Refusal(
        429,
        error("Your account is suspended", type="exceeded_current_quota_error"),
        429,
        RATE,
    ),
    "quota-by-words": Refusal(429, error(QUOTA), 429, RATE),
    "quota-by-flat-words": Refusal(429, {"message": QUOTA, "code": None}, 429, RATE),
    "balance": Refusal(402, error("Insufficient Balance", type="unknown_error"), 502, PAY),
    "balance-403": Refusal(
        403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, 502, PAY
    ),
    "balance-400": Refusal(
        400,
        error(
            "Your credit balance is too low to access the Anthropic API. Please go to Plans &"
            " Billing to upgrade or purchase credits.",
            type="invalid_request_error",
        ),
        502,
        PAY,
    ),
    "arrears": Refusal(
        400,
        {"code": "Arrearage", "message": "Access denied, please make sure your account is in good"},
        502,
        PAY,
    ),
    "balance-in-chinese": Refusal(403, error("账户余额不足"), 502, PAY),
    "overdue": Refusal(
        403, error("The account has an overdue balance", code="AccountOverdueError"), 502, PAY
    ),
    "credits": Refusal(
        402,
        error("This request requires more credits, or fewer max_tokens.", code=402),
        502,
        PAY,
    ),
    # A rate is another thing, though some say quota.
    "rate-of-gemini": Refusal(
        429,
        [
            error(
                QUOTA + " Please retry in 31.5s.",
                status="RESOURCE_EXHAUSTED",
                code=429,
            )
        ],
        429,
        RATE,
        3,
    ),
    "rate": Refusal(429, error("Rate limit reached", code="rate_limit_exceeded"), 429, RATE, 3),
    "throttle-400": Refusal(
        400,
        error("ThrottlingException: Too many tokens, please wait before trying again."),
        429,
        RATE,
        3,
    ),
    "engine-is-busy": Refusal(
        429,
        error(
            "The engine is currently overloaded, please try again later",
            type="engine_overloaded_error",
        ),
        429,
        RATE,
        3,
    ),
    "busy-503": Refusal(
        503, {"code": 50508, "message": "System is too busy now."}, 503, "model_unavailable", 3
    ),
    # Keys.
    "key-401": Refusal(401, error("Invalid API key"), 502, KEY),
    "key-403": Refusal(403, error("Forbidden"), 502, KEY),
    "key-400": Refusal(
        400,
        [error("API key not valid. Please pass a valid API key.", code=400)],
        502,
        KEY,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_an_error_is_what_it_says(name: str) -> None:
    refusal = REFUSALS[name]
    with scenario(retry=RetryPolicy(base=0.0)) as world:
        world.upstream_answers(lambda _: body_of(refusal.body, refusal.status))
        outcome = world.respond(stream=False)
        assert outcome.error is not None
        assert (outcome.http, outcome.error["code"], len(world.requests)) == (
            *(refusal.http, refusal.code, refusal.tries),
        )
