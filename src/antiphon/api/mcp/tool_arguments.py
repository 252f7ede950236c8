"""Tool arguments: the types of each MCP tool's arguments, their ranges, and images among them.

The names, types and defaults of ``StatefulChatArguments`` are exactly those of the tool that it
replaces: so its ranges are checked here and not in its schema.

Images come as URLs, which are passed on, or as paths of files, which are read only within the
folders that the caller shares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from antiphon.api.mcp.request_context import Folders
from antiphon.core.images import data_url
from antiphon.core.items import InputImage
from antiphon.errors import ForbiddenError, InvalidImageError, InvalidRequestError
from antiphon.image_files import read_image_file

#: The model that is asked where the caller names none. A server that has none of that name
#: answers by its own default.
DEFAULT_MODEL: Final = "grok-4"
_MAX_TOKENS: Final = 2**31 - 1
#: How many images one call may bring.
_MAX_IMAGES: Final = 20
_Detail = Literal["auto", "low", "high"]

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


async def load_images(
    urls: Sequence[str], paths: Sequence[str], detail: _Detail, folders: Folders | None
) -> tuple[InputImage, ...]:
    """All images, those of paths last; nothing is fetched.

    ``folders`` gives those that may be read from, None: the caller is on another machine.
    Raises ``InvalidRequestError``, ``InvalidImageError`` and ``ForbiddenError``.
    """
    if not urls and not paths:
        raise InvalidRequestError("There is no image to look at.", param="image_urls")
    if len(urls) + len(paths) > _MAX_IMAGES:
        raise InvalidRequestError(f"Send at most {_MAX_IMAGES} images at once.", param="image_urls")
    for url in urls:
        _check_url(url)
    if paths and folders is None:
        raise ForbiddenError(
            "This server is on another machine and reads no files: send the images as"
            " data: or https: URLs.",
            param="image_paths",
        )
    roots = await folders() if paths and folders is not None else ()
    read = [await asyncio.to_thread(_data_url, path, roots) for path in paths]
    return tuple(InputImage(url, detail) for url in (*urls, *read))


def _check_url(url: str) -> None:
    if not url[:8].lower().startswith(("https://", "data:")):
        raise InvalidImageError(
            "An image's URL has to begin with https:// or data:.",
            code="invalid_image_url",
            param="image_urls",
        )


def _data_url(path: str, roots: Sequence[Path]) -> str:
    resolved = _resolve_allowed_path(path, roots)
    data = read_image_file(resolved, param="image_paths", follow_links=False, shown=path)
    return data_url(data, param="image_paths")


def _resolve_allowed_path(path: str, roots: Sequence[Path]) -> Path:
    """The real path, which must be within one of the folders.

    A path outside is refused in the same way whether it exists or not.
    """
    if not roots:
        raise ForbiddenError(
            "No folder may be read: `antiphon mcp --root DIR` allows one.", param="image_paths"
        )
    try:
        absolute = Path(path).expanduser()
        if not absolute.is_absolute():
            absolute = roots[0] / absolute
        # Every symbolic link is followed, so that none leads out of the folders.
        resolved = absolute.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidImageError("That is no path of an image.", param="image_paths") from error
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        shared = ", ".join(str(root) for root in roots)
        raise ForbiddenError(
            f"That path is not within the folders that may be read: {shared}.",
            param="image_paths",
        )
    return resolved
