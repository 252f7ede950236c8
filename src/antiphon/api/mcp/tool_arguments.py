"""What each tool takes.

The names, types and defaults of ``StatefulChatArguments`` are those of the tool that it stands in
for, to the letter: so its ranges are checked here and not in its schema.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from antiphon.errors import InvalidRequestError

#: The model that is asked where the caller names none. A server that has none of that name
#: answers by its own default.
DEFAULT_MODEL: Final = "grok-4"
_MAX_TOKENS: Final = 2**31 - 1

_Model: TypeAlias = Annotated[
    str | None,
    msgspec.Meta(description="Which model to ask, as list_models names them; null: the default."),
]
_Prompt: TypeAlias = Annotated[str, msgspec.Meta(description="What to say to the model.")]
_System: TypeAlias = Annotated[
    str | None, msgspec.Meta(description="How the model is to answer, for this call only.")
]
_Tokens: TypeAlias = Annotated[
    int | None, msgspec.Meta(description="How long the answer may be, in tokens.")
]
_Temperature: TypeAlias = Annotated[
    float | None, msgspec.Meta(description="From 0 (sober) to 2 (wild).")
]
_ResponseId: TypeAlias = Annotated[
    str, msgspec.Meta(description="The response_id that stateful_chat returned: resp_...")
]


class StatefulChatArguments(msgspec.Struct, frozen=True):
    prompt: str
    response_id: str | None = None
    model: str = DEFAULT_MODEL
    system_prompt: str | None = None
    include_reasoning: bool = False
    temperature: float | None = None
    max_tokens: int | None = None


class ChatArguments(msgspec.Struct, frozen=True):
    prompt: _Prompt
    model: _Model = None
    system_prompt: _System = None
    temperature: _Temperature = None
    max_tokens: _Tokens = None


class ReasoningChatArguments(msgspec.Struct, frozen=True):
    prompt: _Prompt
    model: _Model = None
    system_prompt: _System = None
    reasoning_effort: Annotated[
        Literal["low", "medium", "high"] | None,
        msgspec.Meta(description="How hard to think; null: as the model likes."),
    ] = None
    max_tokens: _Tokens = None


class VisionChatArguments(msgspec.Struct, frozen=True):
    prompt: _Prompt
    image_urls: Annotated[
        list[str] | None,
        msgspec.Meta(description="Images as https: URLs, or as data: URLs of base64."),
    ] = None
    detail: Annotated[
        Literal["auto", "low", "high"], msgspec.Meta(description="How closely to look.")
    ] = "auto"
    model: _Model = None
    system_prompt: _System = None
    max_tokens: _Tokens = None


class LocalVisionChatArguments(VisionChatArguments, frozen=True, kw_only=True):
    image_paths: Annotated[
        list[str] | None,
        msgspec.Meta(
            description="Paths of PNG, JPEG, WebP or GIF files, within the folders that the"
            " server may read."
        ),
    ] = None


class RetrieveArguments(msgspec.Struct, frozen=True):
    response_id: _ResponseId


class DeleteArguments(msgspec.Struct, frozen=True):
    response_id: _ResponseId


class ListModelsArguments(msgspec.Struct, frozen=True):
    pass


class SearchArguments(msgspec.Struct, frozen=True):
    query: Annotated[str, msgspec.Meta(description="Words that the turn has to hold, all of them.")]
    limit: Annotated[int, msgspec.Meta(ge=1, le=50, description="How many turns at most.")] = 10


def check_ranges(temperature: float | None, max_tokens: int | None) -> None:
    """Raises ``InvalidRequestError``."""
    # Not the other way round: nothing can be said of NaN.
    if temperature is not None and not 0 <= temperature <= 2:
        raise _out_of_range_error("temperature", "a number from 0 to 2")
    if max_tokens is not None and not 1 <= max_tokens <= _MAX_TOKENS:
        raise _out_of_range_error("max_tokens", f"a whole number from 1 to {_MAX_TOKENS}")


def _out_of_range_error(name: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid value for '{name}': expected {what}.", param=name)
