"""What holds for every test."""

import asyncio
import functools
import inspect
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from support.example_counts import DEFAULT, PROFILE, PROFILES, examples

# A busy machine must not fail a test: neither by a slow example nor by the time that its data
# took to make.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
for _profile in PROFILES:
    settings.register_profile(
        _profile,
        _UNTIMED,
        max_examples=examples(DEFAULT, _profile),
        # The same examples in each run of the same code; `make soak` looks for others.
        derandomize=_profile != "soak",
    )
settings.load_profile(PROFILE)

# "&" and nohup have these ignored, which the programs that tests start would inherit.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


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
