"""Unpassed fields: each is logged once."""

from __future__ import annotations

import pytest

from antiphon.models.unpassed_fields import UnpassedFields


def test_a_field_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fields = UnpassedFields("m")
    fields.report(["a", "b"])
    fields.report(["a", "c" * 200])
    assert [record.args for record in caplog.records] == [("m", "a"), ("m", "b"), ("m", "c" * 64)]


def test_no_client_can_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    UnpassedFields("m").report(map(str, range(1000)))
    assert len(caplog.records) == 100
