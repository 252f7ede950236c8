"""Images: paths, URLs, bytes and Pillow images as ``InputImage``, with size limits."""

from __future__ import annotations

import asyncio
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from antiphon.chat.options import plain_string
from antiphon.core.images import MAX_IMAGE_BYTES, data_url, extract_blobs
from antiphon.core.items import InputImage, Message
from antiphon.errors import InvalidImageError, InvalidRequestError
from antiphon.image_files import display_path, image_too_large_error, read_image_file

if TYPE_CHECKING:
    import PIL.Image

#: A file's path, an http(s) or ``data:`` URL, a file's bytes, or a picture in Pillow.
ImageSource: TypeAlias = "str | Path | bytes | bytearray | memoryview | PIL.Image.Image"
Detail: TypeAlias = Literal["auto", "low", "high"]

_PARAM = "images"
_SCHEME = re.compile(r"(data):|([a-z][a-z0-9+.-]*)://", re.IGNORECASE)

#: The modes that a PNG holds as they are, and the steps from others to one of them.
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_MODE_CONVERSIONS = {
    "I": ["I;16"],
    "I;16B": ["I", "I;16"],
    "I;16L": ["I", "I;16"],
    "I;16N": ["I", "I;16"],
    "F": ["L"],
    "La": ["LA"],
    "PA": ["RGBA"],
    "RGBa": ["RGBA"],
}
_ORIENTATION_TAG = 0x0112


async def load_image(source: ImageSource, detail: Detail = "auto") -> InputImage:
    """An image as a message holds it: its bytes in a ``data:`` URL, or an http(s) URL.

    A file's bytes stay as they are, and say themselves what type they have. An http(s)
    URL is not fetched here: the model's provider does that. A picture in Pillow becomes a
    PNG of its pixels as they are, with its EXIF block, so that its orientation still
    counts. Files are read and pictures encoded in a thread.

    Raises ``InvalidImageError`` for what is no image, too large or cannot be read, and
    ``InvalidRequestError`` for what is no source of one.
    """
    if detail not in get_args(Detail):
        raise InvalidRequestError(
            f"An image's detail is auto, low or high, not {detail!r}.", param="detail"
        )
    if isinstance(source, str) and (scheme := _SCHEME.match(source)):
        return InputImage(
            await _check_url(plain_string(source), (scheme[1] or scheme[2]).lower()), detail
        )
    if isinstance(source, str | Path):
        return InputImage(await asyncio.to_thread(_read_file, source), detail)
    if isinstance(source, bytes | bytearray | memoryview):
        # A copy: nobody may change the bytes while a thread works on them.
        return InputImage(await asyncio.to_thread(_to_data_url, bytes(source)), detail)
    if _is_pillow_image(source):
        return InputImage(await asyncio.to_thread(_as_png, source), detail)
    raise InvalidRequestError(
        "An image is a path, an http(s) or data: URL, bytes, or a Pillow image, "
        f"not {type(source).__name__}.",
        code="invalid_type",
        param=_PARAM,
    )


async def _check_url(url: str, scheme: str) -> str:
    if scheme in {"http", "https"}:
        return url
    if scheme != "data":
        raise InvalidImageError(
            f"An image's URL begins with https:, http: or data:, not {scheme}: "
            "(for a file, give its path).",
            code="invalid_image_url",
            param=_PARAM,
        )
    return await asyncio.to_thread(_check_data_url, url)


def _check_data_url(url: str) -> str:
    """A ``data:`` URL with the type that its bytes have."""
    _, _, blobs = extract_blobs((Message("user", (InputImage(url),)),), param=_PARAM)
    return _to_data_url(blobs[0].data)


def _to_data_url(data: bytes) -> str:
    return data_url(data, param=_PARAM)


def _read_file(path: str | Path) -> str:
    data = read_image_file(path, param=_PARAM)
    try:
        return _to_data_url(data)
    except InvalidImageError as error:
        raise InvalidImageError(
            f"{display_path(path)}: {error.message}", code=error.code, param=_PARAM
        ) from error


def _is_pillow_image(source: object) -> bool:
    """Whether it is a picture in Pillow, which was then imported by whoever made it."""
    pillow: Any = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(source, pillow.Image)


def _as_png(image: PIL.Image.Image) -> str:
    data = BytesIO()
    try:
        image.load()
        options: dict[str, Any] = {"exif": _exif(image)}
        if image.mode not in _PNG_MODES:
            for mode in _MODE_CONVERSIONS.get(image.mode, ["RGB"]):
                image = image.convert(mode)
            # A profile for inks says nothing about light.
            options["icc_profile"] = None
        image.save(data, "PNG", **options)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InvalidImageError(
            f"The Pillow image cannot be encoded: {error}.", param=_PARAM
        ) from error
    if data.tell() > MAX_IMAGE_BYTES:
        raise image_too_large_error("The Pillow image, as PNG,", _PARAM)
    return _to_data_url(data.getvalue())


def _exif(image: PIL.Image.Image) -> Any:
    """The picture's EXIF block as it came; without one, its orientation alone."""
    if block := image.info.get("exif"):
        return block
    from PIL.Image import Exif  # loaded on first use

    exif = Exif()
    if orientation := image.getexif().get(_ORIENTATION_TAG):
        exif[_ORIENTATION_TAG] = orientation
    return exif if exif else None
