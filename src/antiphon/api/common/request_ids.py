"""``x-request-id``: one name for a request, in its answer and in every line about it."""

from __future__ import annotations

import re

from antiphon.core.ids import new_response_id

_SANE = re.compile(rb"[\x21-\x7e]{1,128}\Z")


def request_id_for(given: bytes | None) -> str:
    """The client's own id where it can be repeated without harm, else a new one."""
    if given is not None and _SANE.match(given):
        return given.decode("ascii")
    # A response's id is random enough, and comes from a stock of them.
    return "req_" + new_response_id().removeprefix("resp_")
