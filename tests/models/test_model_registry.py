"""The catalog: which model answers to which name."""

from __future__ import annotations

import pytest

from antiphon.errors import InvalidRequestError, ModelNotFoundError
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel

FIRST, SECOND, UPSTREAM = ScriptedModel(), ScriptedModel(), ScriptedModel()


def test_a_model_answers_to_its_name_and_the_default_to_none() -> None:
    catalog = ModelRegistry({"first": FIRST, "second": SECOND}, default="second")
    assert catalog.get("first") == ("first", FIRST)
    assert catalog.get(None) == ("second", SECOND)
    assert catalog.get("") == ("second", SECOND)


def test_an_unknown_name_is_not_found() -> None:
    catalog = ModelRegistry({"first": FIRST}, default="first")
    with pytest.raises(ModelNotFoundError, match="'other'") as caught:
        catalog.get("other")
    assert (caught.value.status, caught.value.param) == (404, "model")


def test_an_upstream_answers_to_every_name_that_is_left() -> None:
    catalog = ModelRegistry({"first": FIRST}, default="grok", fallback=UPSTREAM)
    assert catalog.get("first") == ("first", FIRST)
    assert catalog.get("other") == ("other", UPSTREAM)
    assert catalog.get(None) == ("grok", UPSTREAM)


def test_without_a_default_a_name_is_needed() -> None:
    catalog = ModelRegistry({"first": FIRST}, fallback=UPSTREAM)
    for missing in (None, ""):
        with pytest.raises(InvalidRequestError) as caught:
            catalog.get(missing)
        assert (caught.value.param, type(caught.value)) == ("model", InvalidRequestError)


def test_the_default_is_listed_first_and_once() -> None:
    both = {"first": FIRST, "second": SECOND}
    assert [name for name, _ in ModelRegistry(both, default="second").items()] == [
        "second",
        "first",
    ]
    assert [name for name, _ in ModelRegistry(both).items()] == ["first", "second"]
    catalog = ModelRegistry(both, default="grok", fallback=UPSTREAM)
    assert catalog.items() == [("grok", UPSTREAM), ("first", FIRST), ("second", SECOND)]


def test_every_model_is_closed_once() -> None:
    catalog = ModelRegistry({"first": FIRST, "alias": FIRST, "second": SECOND}, fallback=UPSTREAM)
    assert catalog.all() == [FIRST, SECOND, UPSTREAM]
    assert ModelRegistry({"first": FIRST}, fallback=FIRST).all() == [FIRST]
    assert ModelRegistry({}).all() == []


def test_a_catalog_does_not_change_with_what_it_was_made_of() -> None:
    models = {"first": FIRST}
    catalog = ModelRegistry(models)
    models["second"] = SECOND
    with pytest.raises(ModelNotFoundError):
        catalog.get("second")
