"""Image files: read whole, up to the size that an image may have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from antiphon.core.images import MAX_IMAGE_BYTES
from antiphon.errors import InvalidImageError

#: Another program may put a pipe in a file's place: opening one must not wait.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: Characters of a path that an error shows.
_MAX_PATH_LENGTH = 200


def read_image_file(
    path: str | Path, *, param: str, follow_links: bool = True, shown: str | None = None
) -> bytes:
    """A file's bytes. Blocks.

    Errors name ``shown`` in place of the path. Without ``follow_links`` the path's last step may
    not be a symbolic link: who resolved the path before knows what is opened. (Windows has
    no such flag.) Raises ``InvalidImageError`` for what is no file, too large or unreadable.
    """
    name = display_path(path if shown is None else shown)
    flags = _FLAGS if follow_links else _FLAGS | getattr(os, "O_NOFOLLOW", 0)
    try:
        # Looked at before it is opened, as opening a device may do something, and after, as
        # another program may put something else in its place.
        _check_is_file(name, os.stat(path, follow_symlinks=follow_links), param)
        with open(os.open(path, flags), "rb") as file:
            _check_is_file(name, os.fstat(file.fileno()), param)
            # One more than allowed, as the file may still be growing.
            data = file.read(MAX_IMAGE_BYTES + 1)
    except FileNotFoundError as error:
        raise InvalidImageError(f"There is no file {name}.", param=param) from error
    except (OSError, ValueError) as error:
        # A null byte, say. What Python says of it differs from version to version.
        why = error.strerror if isinstance(error, OSError) else "no file can have that name"
        raise InvalidImageError(f"{name} cannot be read: {why}.", param=param) from error
    if len(data) > MAX_IMAGE_BYTES:
        raise image_too_large_error(name, param)
    return data


def display_path(path: str | Path) -> str:
    """A path as an error shows it: quoted, and not of any length."""
    text = str(path)
    return repr(text if len(text) <= _MAX_PATH_LENGTH else text[:_MAX_PATH_LENGTH] + "…")


def image_too_large_error(what: str, param: str) -> InvalidImageError:
    return InvalidImageError(
        f"{what} is too large: an image may have at most {MAX_IMAGE_BYTES >> 20} MiB.",
        code="image_too_large",
        param=param,
    )


def _check_is_file(name: str, found: os.stat_result, param: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a file"
        raise InvalidImageError(f"{name} is {what}.", param=param)
