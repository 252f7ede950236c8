"""What is shown only where a request asks for it (``include``). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, Options
from antiphon.errors import InvalidRequestError

#: The specification's two, and those that OpenAI's clients know besides.
Includable: TypeAlias = Literal[
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
INCLUDABLE: tuple[str, ...] = get_args(Includable)


def parse_include(query: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What a query asks for, as ``include=…`` or ``include[]=…``. Raises ``InvalidRequestError``."""
    asked = (*query.get("include", ()), *query.get("include[]", ()))
    for one in asked:
        if one not in INCLUDABLE:
            raise InvalidRequestError(
                f"There is nothing called '{one[:64]}' to include.", param="include"
            )
    return asked


def shows_encrypted_reasoning(options: Options, include: Sequence[str] = ()) -> bool:
    """Whether a turn's reasoning is shown as its model will want it back.

    Whoever made the turn may have asked for it, or whoever looks at it now (``include``).
    """
    return INCLUDE_ENCRYPTED_REASONING in options.include or INCLUDE_ENCRYPTED_REASONING in include
