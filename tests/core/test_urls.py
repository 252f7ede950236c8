"""Tests of URLs of the web, and of the delays of exponential backoff."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.backoff import exponential_delay
from antiphon.core.urls import host_of, is_web_url, split_web_url


@pytest.mark.parametrize(
    "url", ["http://a", "HTTPS://A.example:8443/x?y#z", "https://u:p@a/b", "http://[::1]:80/"]
)
def test_a_web_url_is_one(url: str) -> None:
    assert is_web_url(url)
    assert split_web_url(url) is not None


@pytest.mark.parametrize(
    "url", ["", "a.example", "ftp://a", "file:///etc/passwd", "http:", "http://", "http:///x"]
)
def test_what_has_no_web_scheme_or_no_host_is_none(url: str) -> None:
    assert split_web_url(url) is None


@pytest.mark.parametrize("url", ["http://[::1", "http://a:x/", "http://a:99999/", "http://[x]/"])
def test_what_cannot_be_split_is_none(url: str) -> None:
    assert split_web_url(url) is None


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    parts = split_web_url(text)
    assert parts is None or (parts.hostname and is_web_url(parts.geturl()))
    host_of(text)


@pytest.mark.parametrize(
    ("netloc", "host"),
    [("a:80", "a"), ("[::1]:80", "::1"), ("A", "a"), ("", ""), ("[::1", ""), (":80", "")],
)
def test_a_host_is_found_beside_its_port(netloc: str, host: str) -> None:
    assert host_of(netloc) == host


@given(
    failures=st.integers(-2, 10_000),
    base=st.floats(0, 100),
    cap=st.floats(0, 1000),
    jitter=st.floats(0, 1),
)
def test_a_delay_doubles_up_to_its_cap(
    failures: int, base: float, cap: float, jitter: float
) -> None:
    delay = exponential_delay(failures, base=base, cap=cap, jitter=jitter)
    whole = exponential_delay(failures, base=base, cap=cap)
    assert whole / 2 <= delay <= whole <= cap
    if failures < 1:
        assert delay == 0
    elif failures < 20 and base * 2.0**failures < cap:
        assert exponential_delay(failures + 1, base=base, cap=cap) == 2 * whole
