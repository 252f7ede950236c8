"""The images that a tool is given: URLs are passed on, files are read where that is allowed."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from antiphon.api.mcp.caller import Folders
from antiphon.core.images import MAX_IMAGE_BYTES, data_url
from antiphon.core.items import InputImage
from antiphon.errors import ForbiddenError, InvalidImageError, InvalidRequestError

#: How many images one call may bring.
_MAX_IMAGES: Final = 20
#: A pipe must not be waited for, and the last step of a path that was followed already must
#: not lead away again. Windows has neither.
_OPEN_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)
_Detail = Literal["auto", "low", "high"]


async def load_images(
    urls: Sequence[str], paths: Sequence[str], detail: _Detail, folders: Folders | None
) -> tuple[InputImage, ...]:
    """All of them, those of paths last; nothing is fetched.

    ``folders`` are those that may be read from, None: there are none on this machine.
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
    return data_url(_read(_resolve_allowed_path(path, roots)), param="image_paths")


def _resolve_allowed_path(path: str, roots: Sequence[Path]) -> Path:
    """Where a path leads, if that is within one of the folders.

    What is outside is refused the same way whether it is there or not.
    """
    if not roots:
        raise ForbiddenError(
            "No folder may be read: `antiphon mcp --root DIR` allows one.", param="image_paths"
        )
    try:
        given = Path(path).expanduser()
        if not given.is_absolute():
            given = roots[0] / given
        # Every link on the way is followed, so that none leads out unseen.
        found = given.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidImageError("That is no path of an image.", param="image_paths") from error
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        shared = ", ".join(str(root) for root in roots)
        raise ForbiddenError(
            f"That path is not within the folders that may be read: {shared}.",
            param="image_paths",
        )
    return found


def _read(path: Path) -> bytes:
    try:
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidImageError("That path is not a file.", param="image_paths")
            # One byte more than allowed tells that there is too much.
            return file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise InvalidImageError(
            f"The image cannot be read: {error.strerror}.", param="image_paths"
        ) from error
