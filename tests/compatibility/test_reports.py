"""What people have reported of servers and gateways: each answer means what it was meant to."""

from __future__ import annotations

import pytest

from support.answer_tables import check_answers
from support.reports import CHAT, RESPONSES
from support.scenario import Scenario


@pytest.mark.parametrize("name", CHAT)
def test_chat_completions_are_read_as_they_were_meant(world: Scenario, name: str) -> None:
    check_answers(world, CHAT[name])


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_are_read_as_they_were_meant(responses_world: Scenario, name: str) -> None:
    check_answers(responses_world, RESPONSES[name])
