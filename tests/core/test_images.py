"""Images: type detection, and conversion between data URLs and stored blobs."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import zipfile

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from antiphon.core import images
from antiphon.core.images import (
    MAX_IMAGE_BYTES,
    Blob,
    data_url,
    extract_blobs,
    image_type,
    restore_blobs,
)
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    decode_item,
    encode_item,
)
from antiphon.errors import InvalidImageError, StoreError

MEDIA = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}


def image_bytes(kind: str, size: int = 1, mode: str = "RGB", **how: object) -> bytes:
    """An image as Pillow writes it."""
    file = io.BytesIO()
    Image.new(mode, (size, size)).save(file, kind, **how)
    return file.getvalue()


PNG, JPEG, WEBP, GIF = map(image_bytes, MEDIA)


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def url_of(data: bytes, media: str = "image/png") -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def message_with(*urls: str) -> Message:
    return Message("user", (InputText("Look:"), *[InputImage(url) for url in urls]))


def urls_of(item: Item) -> list[str]:
    assert isinstance(item, Message)
    return [part.image_url for part in item.content if isinstance(part, InputImage)]


# Type detection


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("kind", MEDIA)
def test_image_type_is_detected_from_bytes(kind: str, size: int) -> None:
    assert image_type(image_bytes(kind, size)) == MEDIA[kind]
    assert MEDIA[kind] in images.IMAGE_MEDIA_TYPES


def test_image_variants_are_detected() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a note"
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    assert image_type(image_bytes("JPEG", exif=exif)) == "image/jpeg"
    assert image_type(image_bytes("JPEG", mode="CMYK")) == "image/jpeg"
    assert image_type(image_bytes("JPEG", 50, progressive=True)) == "image/jpeg"
    assert image_type(image_bytes("WEBP", lossless=True)) == "image/webp"
    assert image_type(image_bytes("WEBP", mode="RGBA")) == "image/webp"
    for kind in ("PNG", "WEBP", "GIF"):
        animation = animated_image(kind, frames)
        assert image_type(animation) == MEDIA[kind]
    assert animated_image("GIF", frames).startswith(b"GIF89a")


def animated_image(kind: str, frames: list[Image.Image]) -> bytes:
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


def test_embedded_signatures_do_not_change_the_type() -> None:
    # The signatures of tar, ISO 9660 and TGA files, at their offsets.
    large = bytearray(image_bytes("JPEG", 2000, quality=100) + bytes(40_000))
    large[257:262] = b"ustar"
    large[32769:32774] = b"CD001"
    large[-18:] = b"TRUEVISION-XFILE.\0"
    assert image_type(bytes(large)) == "image/jpeg"
    assert image_type(JPEG + b"TRUEVISION-XFILE.\0") == "image/jpeg"
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("a", "b")
    assert image_type(GIF + zipped.getvalue()) == "image/gif"


@pytest.mark.parametrize(
    ("data", "detected"),
    [
        (image_bytes("BMP"), "bmp"),
        (image_bytes("TIFF"), "tif"),
        (image_bytes("ICO"), "ico"),
        (image_bytes("AVIF"), "avif"),
        (image_bytes("JPEG2000"), "jp2"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg"),
        (b"%PDF-1.4\n", "pdf"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "wav"),
        (b"\0\0\0\x20ftypheic", "heif"),
        (b"some words", None),
        (b"\0", None),
        # Signatures that are truncated, changed, escaped, or at the wrong offset.
        (b"\x89PNG\r\n", None),
        (b"\x89PNG\n\x1a\n" + PNG[7:], None),
        (rb"\x89PNG\r\n\x1a\n", None),
        (rb"\377\330\377", ""),
        (b"\xff\xd8", ""),
        (b"GIF88a" + GIF[6:], None),
        (WEBP[:8], ""),
        (b"RIFF\x24\0\0\0WEBX" + WEBP[12:], ""),
        (b" " + PNG, None),
    ],
)
def test_other_file_types_are_refused(data: bytes, detected: str | None) -> None:
    """``detected`` None: no type is named; empty: any type may be named."""
    with pytest.raises(InvalidImageError) as caught:
        image_type(data, param="images")
    assert (caught.value.code, caught.value.param) == ("unsupported_image_type", "images")
    assert ("looks like" in caught.value.message) == (detected is not None)
    assert (detected or "") in caught.value.message


def test_empty_and_too_large_images_are_refused() -> None:
    with pytest.raises(InvalidImageError, match="empty") as caught:
        image_type(b"")
    assert (caught.value.code, caught.value.param) == ("invalid_image", "input")
    largest = PNG + bytes(MAX_IMAGE_BYTES - len(PNG))
    assert image_type(largest) == "image/png"
    with pytest.raises(InvalidImageError, match="20 MiB") as caught:
        image_type(largest + b"\0")
    assert caught.value.code == "image_too_large"


def test_data_url_has_the_bytes_and_media_type() -> None:
    for data, media in zip((PNG, JPEG, WEBP, GIF), MEDIA.values(), strict=True):
        assert data_url(data) == url_of(data, media)
    with pytest.raises(InvalidImageError) as caught:
        data_url(b"", param="images")
    assert caught.value.param == "images"


# Extracting blobs


def test_items_without_images_are_returned_unchanged() -> None:
    items: tuple[Item, ...] = (
        Message("user", "Hi."),
        Message("user", (InputText("Hi."),)),
        FunctionCall("c", "f", "{}"),
        FunctionCallOutput("c", "blob:" + "0" * 64),
    )
    shown, stored, blobs = extract_blobs(items)
    assert shown is items
    assert stored is items
    assert blobs == ()
    assert extract_blobs(list(items)) == (items, items, ())
    assert extract_blobs([]) == ((), (), ())


def test_data_url_becomes_a_reference_and_a_blob() -> None:
    said = Message("user", "Hi.")
    image = InputImage(url_of(PNG), detail="high")
    seen = Message("user", (InputText("Look:"), image, InputText("There.")), name="ann")
    drew = FunctionCallOutput("c", (InputImage(url_of(JPEG, "image/jpeg")),), status="incomplete")
    shown, stored, blobs = extract_blobs([said, seen, drew])
    assert shown == (said, seen, drew)
    assert all(one is other for one, other in zip(shown, (said, seen, drew), strict=True))
    assert blobs == (Blob(hash_of(PNG), PNG), Blob(hash_of(JPEG), JPEG))
    reference = InputImage(f"blob:{hash_of(PNG)}", detail="high")
    assert stored == (
        said,
        Message("user", (InputText("Look:"), reference, InputText("There.")), name="ann"),
        FunctionCallOutput("c", (InputImage(f"blob:{hash_of(JPEG)}"),), status="incomplete"),
    )
    assert stored[0] is said


def test_equal_images_become_one_blob() -> None:
    text = base64.encodebytes(PNG).decode().replace("\n", "\r\n ")
    urls = [
        url_of(PNG),
        url_of(PNG, "image/jpeg"),
        url_of(PNG, ""),
        url_of(PNG, "IMAGE/PNG;charset=utf-8").replace("data", "DATA").replace("base", "BASE"),
        f"data:image/png;base64,{text}",
    ]
    shown, stored, blobs = extract_blobs([message_with(*urls), message_with(urls[1])])
    assert blobs == (Blob(hash_of(PNG), PNG),)
    assert [urls_of(item) for item in shown] == [[url_of(PNG)] * 5, [url_of(PNG)]]
    assert {url for item in stored for url in urls_of(item)} == {f"blob:{hash_of(PNG)}"}


def test_noncanonical_base64_is_normalized() -> None:
    # Its last letter has unused bits.
    data = PNG + b"\0" * ((1 - len(PNG)) % 3)
    noncanonical = url_of(data).removesuffix("A==") + "B=="
    shown, stored, blobs = extract_blobs([message_with(noncanonical)])
    assert blobs[0].data == data
    assert shown == (restore_blobs(stored[0], {blobs[0].hash: data}),)


@pytest.mark.parametrize("url", ["https://example.com/cat.png", "http://10.0.0.1/", "HTTPS://a/b"])
def test_web_urls_are_unchanged(url: str) -> None:
    item = message_with(url)
    shown, stored, blobs = extract_blobs([item])
    assert shown[0] is stored[0] is item
    assert blobs == ()
    (_, mixed), _, blobs = extract_blobs([item, message_with(url, url_of(GIF))])
    assert urls_of(mixed) == [url, url_of(GIF, "image/gif")]
    assert blobs == (Blob(hash_of(GIF), GIF),)


@pytest.mark.parametrize(
    "url",
    [
        "",
        f"blob:{hash_of(PNG)}",
        "BLOB:1",
        "blob:https://example.com/1",
        "cat.png",
        "./cat.png",
        "/etc/passwd",
        "C:\\cat.png",
        "file:///etc/passwd",
        "ftp://example.com/cat.png",
        "javascript:alert(1)",
        "//example.com/cat.png",
        " https://example.com/cat.png",
        "https:/cat.png",
        "data",
    ],
)
def test_other_url_schemes_are_refused(url: str) -> None:
    for item in (message_with(url), FunctionCallOutput("c", (InputImage(url),))):
        # A forged reference is refused even together with the image that it names.
        with pytest.raises(InvalidImageError) as caught:
            extract_blobs([message_with(url_of(PNG)), item], param="messages")
        assert (caught.value.code, caught.value.param) == ("invalid_image_url", "messages")
        assert "passwd" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:", "invalid_image"),
        ("data:image/png", "invalid_image"),
        ("data:image/png,abc", "invalid_image"),
        ("data:image/png;base64", "invalid_image"),
        ("data:image/png;base64,", "invalid_image"),
        ("data:image/png;base64,%%%%", "invalid_image"),
        ("data:image/png;base64,iVBORw0KG", "invalid_image"),
        ("data:image/png;base64,iVBORw==iVBO", "invalid_image"),
        ("data:image/png;base64,ÿÿÿÿ", "invalid_image"),
        ("data:image/png;base64," + "\ud83d", "invalid_image"),
        (url_of(b"some words"), "unsupported_image_type"),
    ],
)
def test_invalid_data_urls_are_refused(url: str, code: str) -> None:
    with pytest.raises(InvalidImageError) as caught:
        extract_blobs([message_with(url)])
    assert (caught.value.code, caught.value.param) == (code, "input")


def test_image_size_limit() -> None:
    data = PNG + bytes(MAX_IMAGE_BYTES - len(PNG))
    _, _, (blob,) = extract_blobs([message_with(url_of(data))])
    assert blob.data == data
    for more in (1, 9):
        with pytest.raises(InvalidImageError) as caught:
            extract_blobs([message_with(url_of(data + bytes(more)))])
        assert caught.value.code == "image_too_large"


# Restoring blobs


CHANGES = st.binary(max_size=40).map(lambda tail: tail or b"\0")


@given(st.lists(st.tuples(st.sampled_from([PNG, JPEG, WEBP, GIF]), CHANGES), max_size=5))
def test_extracted_images_round_trip(image_data: list[tuple[bytes, bytes]]) -> None:
    urls = [url_of(image + tail, "image/whatever") for image, tail in image_data]
    given = [
        message_with(*urls[:2]),
        Message("user", "Hi."),
        message_with(*urls[2:], "https://a/b"),
    ]
    shown, stored, blobs = extract_blobs(given)
    data_by_hash = {blob.hash: blob.data for blob in blobs}
    read = [decode_item(encode_item(item)) for item in stored]
    assert tuple(restore_blobs(item, data_by_hash) for item in read) == shown
    assert all(hash_of(data) == name for name, data in data_by_hash.items())
    # The returned items can be sent again, with the same result.
    assert extract_blobs(shown) == (shown, stored, blobs)


def test_items_without_references_are_unchanged_by_restore() -> None:
    items: tuple[Item, ...] = (
        Message("user", "blob:"),
        message_with("https://example.com/cat.png"),
        # Stored before there were blobs.
        message_with(url_of(PNG)),
        FunctionCall("c", "f", "{}"),
        FunctionCallOutput("c", "fine"),
    )
    assert all(restore_blobs(item, {}) is item for item in items)


def test_images_in_function_outputs_are_restored() -> None:
    item = FunctionCallOutput("c", (InputImage(f"blob:{hash_of(WEBP)}"),))
    assert restore_blobs(item, {hash_of(WEBP): WEBP}) == msgspec.structs.replace(
        item, output=(InputImage(url_of(WEBP, "image/webp")),)
    )


def test_missing_blob_is_a_store_error() -> None:
    with pytest.raises(StoreError) as caught:
        restore_blobs(message_with(f"blob:{hash_of(PNG)}"), {hash_of(GIF): GIF})
    assert caught.value.code == "blob_missing"


def test_text_items_do_not_import_puremagic() -> None:
    code = (
        "import sys\n"
        "from antiphon.core.images import extract_blobs, restore_blobs\n"
        "from antiphon.core.items import Message\n"
        "restore_blobs(extract_blobs([Message('user', 'Hi.')])[1][0], {})\n"
        "assert 'puremagic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
