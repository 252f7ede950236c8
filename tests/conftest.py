"""What holds for every test."""

import asyncio
import functools
import inspect
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a test: neither by a slow example nor by the time that its data
# took to make.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("antiphon", _UNTIMED, max_examples=40)
settings.register_profile("soak", _UNTIMED, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "antiphon"))


#: Seconds after which an async test that has not ended never will.
_ASYNC_TEST_LIMIT = 120


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Ends an async test that hangs."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return (yield)

    @functools.wraps(test)
    async def limited(**arguments: object) -> None:
        async with asyncio.timeout(_ASYNC_TEST_LIMIT):
            await test(**arguments)

    pyfuncitem.obj = limited
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test
