"""Pages of lists."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.api.http.pagination import paginate
from antiphon.errors import InvalidRequestError


def items(count: int) -> list[dict[str, Any]]:
    return [{"id": f"msg_{place}"} for place in range(count)]


def ids(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["data"]]


def test_the_newest_twenty_unless_asked_otherwise() -> None:
    page = paginate(items(30), {})
    assert ids(page) == [f"msg_{place}" for place in range(29, 9, -1)]
    assert page["object"] == "list"
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("msg_29", "msg_10", True)


def test_nothing() -> None:
    assert paginate([], {}) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_after_the_last_is_nothing() -> None:
    page = paginate(items(2), parse_qs("order=asc&after=msg_1"))
    assert (ids(page), page["has_more"]) == ([], False)


def test_a_full_page_may_be_the_last() -> None:
    assert paginate(items(5), parse_qs("limit=5"))["has_more"] is False
    assert paginate(items(6), parse_qs("limit=5"))["has_more"] is True


@settings(deadline=None)
@given(count=st.integers(0, 250), limit=st.integers(1, 100), order=st.sampled_from(["asc", "desc"]))
def test_pages_put_together_are_the_list(count: int, limit: int, order: str) -> None:
    query = f"limit={limit}&order={order}"
    page = paginate(items(count), parse_qs(query))
    seen = ids(page)
    while page["has_more"]:
        assert len(page["data"]) == limit
        page = paginate(items(count), parse_qs(f"{query}&after={page['last_id']}"))
        seen += ids(page)
    assert sorted(seen) == sorted(item["id"] for item in items(count))
    everything = [item["id"] for item in items(count)]
    assert seen == (everything if order == "asc" else everything[::-1])


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=ten", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=" + "9" * 10_000, "limit"),
        ("order=up", "order"),
        ("after=msg_99", "after"),
        ("after=%FF%00", "after"),
    ],
)
def test_bad_queries(query: str, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        paginate(items(3), parse_qs(query))
    assert (caught.value.status, caught.value.param) == (400, param)
