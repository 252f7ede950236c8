"""Images: stored once by their SHA-256, sent to models as ``data:`` URLs. No I/O.

A model and a client see ``data:image/png;base64,…``; a stored item says ``blob:`` and the
SHA-256 of the image's bytes, which the store keeps beside it. URLs of images elsewhere
stay as they are: nothing here fetches them.
"""

from __future__ import annotations

import hashlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Final
from urllib.parse import unquote

import msgspec

from antiphon.core.items import (
    FunctionCallOutput,
    InputImage,
    Item,
    Message,
    Part,
    has_image,
)
from antiphon.core.urls import is_web_url
from antiphon.errors import InvalidImageError, StoreError

MAX_IMAGE_BYTES: Final = 20 * 1024 * 1024

#: puremagic's name for each kind that models can look at, its media type, and how many bytes
#: of its mark have to be there. With fewer, puremagic calls any RIFF file a WebP, and the
#: words "\x89PNG" an image; by media type alone it would take JPEG 2000 for JPEG.
_IMAGE_FORMATS: Final = {
    ".png": ("image/png", 8),
    ".jpg": ("image/jpeg", 3),
    ".webp": ("image/webp", 12),
    ".gif": ("image/gif", 6),
}
#: The media types that count as images.
IMAGE_MEDIA_TYPES: Final = tuple(media for media, _ in _IMAGE_FORMATS.values())

#: All marks lie in these first bytes: puremagic need not look any further.
_SIGNATURE_BYTES: Final = 32
#: How the base64 of images begins, which some clients send without the rest of a ``data:`` URL.
_BASE64_SIGNATURES: Final = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD")
#: The two digits that URLs have in other letters.
_URL_SAFE: Final = str.maketrans("-_", "+/")
_BLOB_SCHEME: Final = "blob:"
#: Where an image is returned, by its hash.
BLOB_PATH: Final = "/v1/blobs/"


class Blob(msgspec.Struct, frozen=True):
    """An image's bytes; ``hash`` is their SHA-256 in 64 hex digits."""

    hash: str
    data: bytes


def image_type(data: bytes, *, param: str | None = "input") -> str:
    """The media type that the bytes have, whatever they are called: one of ``IMAGE_MEDIA_TYPES``.

    Raises InvalidImageError with code ``invalid_image`` (no bytes), ``image_too_large`` or
    ``unsupported_image_type``.
    """
    if not data:
        raise InvalidImageError("The image is empty.", param=param)
    if len(data) > MAX_IMAGE_BYTES:
        limit = MAX_IMAGE_BYTES >> 20
        raise InvalidImageError(
            f"An image may have at most {limit} MiB.", code="image_too_large", param=param
        )
    from puremagic import PureError, magic_string  # loaded on first use

    try:
        matches = magic_string(data[:_SIGNATURE_BYTES])
    except PureError:
        matches = []
    for match in matches:
        media, mark = _IMAGE_FORMATS.get(match.extension, ("", 0))
        if media and len(match.byte_match) >= mark:
            return media
    others = [match.extension[1:] for match in matches if match.extension not in _IMAGE_FORMATS]
    looks = f"; this looks like {others[0]}" if others else ""
    raise InvalidImageError(
        f"An image has to be PNG, JPEG, WebP or GIF{looks}.",
        code="unsupported_image_type",
        param=param,
    )


def data_url(data: bytes, *, param: str | None = "input") -> str:
    """``data:image/png;base64,…``. Raises InvalidImageError as ``image_type`` does."""
    media = image_type(data, param=param)
    return f"data:{media};base64,{b2a_base64(data, newline=False).decode('ascii')}"


def extract_blobs(
    items: Sequence[Item], *, param: str | None = "input"
) -> tuple[tuple[Item, ...], tuple[Item, ...], tuple[Blob, ...]]:
    """What came from outside: as a model is shown it, as it is stored, and its images.

    A ``data:`` URL gets the media type that its bytes have, and is stored as a reference
    to its blob; each blob comes once. Raises InvalidImageError as ``image_type`` does, also for
    broken base64 (``invalid_image``), and for URLs that are neither ``data:`` nor
    ``http(s):`` (``invalid_image_url``): a reference is made here, and taken from nobody.
    """
    given = tuple(items)
    if not any(map(has_image, given)):
        return given, given, ()
    #: By the URL that stands for it.
    blobs: dict[str, Blob] = {}

    def shown(image: InputImage) -> InputImage:
        url = _normalize_url(image.image_url, blobs, param)
        return _replace_url(image, url)

    def stored(image: InputImage) -> InputImage:
        blob = blobs.get(image.image_url)
        return _replace_url(image, _BLOB_SCHEME + blob.hash) if blob else image

    to_show = tuple([_map_images(item, shown) for item in given])
    to_store = tuple([_map_images(item, stored) for item in to_show])
    return to_show, to_store, tuple(blobs.values())


def restore_blobs(item: Item, blobs: Mapping[str, bytes]) -> Item:
    """A stored item as a model is shown it; ``blobs`` are bytes by hash.

    Raises StoreError (``blob_missing``) where the store did not bring an image.
    """

    def shown(image: InputImage) -> InputImage:
        if not image.image_url.startswith(_BLOB_SCHEME):
            return image
        data = blobs.get(image.image_url.removeprefix(_BLOB_SCHEME))
        if data is None:
            raise StoreError("The store lost an image of this conversation.", code="blob_missing")
        return _replace_url(image, data_url(data))

    return _map_images(item, shown) if has_image(item) else item


def refer_to_blobs(item: Item) -> Item:
    """A stored item with its images by the path of the endpoint that returns their bytes."""

    def referred(image: InputImage) -> InputImage:
        if not image.image_url.startswith(_BLOB_SCHEME):
            return image
        return _replace_url(image, BLOB_PATH + image.image_url.removeprefix(_BLOB_SCHEME))

    return _map_images(item, referred) if has_image(item) else item


def _normalize_url(url: str, blobs: dict[str, Blob], param: str | None) -> str:
    """The URL that a model is shown; adds the image of a ``data:`` URL to ``blobs``."""
    if url in blobs:
        return url
    if is_web_url(url):
        return url
    url = url.strip()
    if url.startswith(_BASE64_SIGNATURES):
        url = f"data:;base64,{url}"
    if url[:5].lower() != "data:":
        raise InvalidImageError(
            "An image's URL has to begin with data:, https:// or http://; "
            "nothing else is looked up.",
            code="invalid_image_url",
            param=param,
        )
    data = _decode_data_url(url, param)
    # Made anew: one image, one URL, however it was written when it came.
    url = data_url(data, param=param)
    if url not in blobs:
        blobs[url] = Blob(hashlib.sha256(data).hexdigest(), data)
    return url


def _decode_data_url(url: str, param: str | None) -> bytes:
    """The bytes of a ``data:`` URL."""
    head, _, text = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise InvalidImageError(
            "A data: URL of an image has to hold base64: data:image/png;base64,...", param=param
        )
    try:
        # Many encoders break their lines, leave out the padding, or escape what a URL may not hold.
        text = "".join((unquote(text) if "%" in text else text).split()).translate(_URL_SAFE)
        return a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise InvalidImageError("The image's base64 cannot be decoded.", param=param) from error


def _map_images(item: Item, change: Callable[[InputImage], InputImage]) -> Item:
    """The item with its images changed; the same object where none was."""

    def parts(content: str | tuple[Part, ...]) -> str | tuple[Part, ...]:
        if isinstance(content, str):
            return content
        new = tuple([change(part) if isinstance(part, InputImage) else part for part in content])
        return content if all(map(is_, new, content)) else new

    if isinstance(item, Message):
        content = parts(item.content)
        return item if content is item.content else msgspec.structs.replace(item, content=content)
    if isinstance(item, FunctionCallOutput):
        output = parts(item.output)
        return item if output is item.output else msgspec.structs.replace(item, output=output)
    return item


def _replace_url(image: InputImage, url: str) -> InputImage:
    """The same object where that is its URL already."""
    return image if image.image_url == url else msgspec.structs.replace(image, image_url=url)
