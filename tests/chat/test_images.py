"""Loading images: from a path, a URL, bytes or Pillow to an image part."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from antiphon.chat.images import load_image
from antiphon.core.images import MAX_IMAGE_BYTES
from antiphon.core.items import InputImage
from antiphon.errors import InvalidImageError, InvalidRequestError
from support.turn_service import run

ORIENTATION = 0x0112


def encoded(kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(data, kind, **options)
    return data.getvalue()


def url_of(data: bytes, media: str = "image/png") -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def decoded(image: InputImage) -> Image.Image:
    head, _, data = image.image_url.partition(",")
    assert head == "data:image/png;base64"
    reloaded = Image.open(io.BytesIO(base64.b64decode(data)))
    reloaded.load()
    return reloaded


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("as_path", [Path, str])
def test_image_file_is_unchanged_and_typed_by_content(
    tmp_path: Path, kind: str, as_path: type
) -> None:
    data = encoded(kind)
    path = tmp_path / "picture.txt"
    path.write_bytes(data)
    image = run(load_image(as_path(path), "high"))
    assert image == InputImage(url_of(data, f"image/{kind.lower()}"), "high")


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_image_bytes_are_unchanged(wrap: Any) -> None:
    data = encoded()
    assert run(load_image(wrap(data))) == InputImage(url_of(data), "auto")


@pytest.mark.parametrize("url", ["https://example.com/cat.png?size=1", "HTTP://example.com/x"])
def test_web_url_is_passed_to_the_provider(url: str) -> None:
    assert run(load_image(url, "low")) == InputImage(url, "low")


def test_data_url_media_type_comes_from_its_bytes() -> None:
    data = encoded()
    assert run(load_image(url_of(data, "image/jpeg"))).image_url == url_of(data)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64,!!!", "invalid_image"),
        ("data:text/plain;base64,aGVsbG8=", "unsupported_image_type"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("ftp://example.com/cat.png", "invalid_image_url"),
        ("blob://" + "0" * 64, "invalid_image_url"),
    ],
)
def test_other_urls_are_refused(url: str, code: str) -> None:
    with pytest.raises(InvalidImageError) as caught:
        run(load_image(url))
    assert (caught.value.code, caught.value.param) == (code, "images")


def image_error(source: Any) -> InvalidImageError:
    with pytest.raises(InvalidImageError) as caught:
        run(load_image(source))
    assert caught.value.param == "images"
    return caught.value


def test_unreadable_path_is_named_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    assert image_error(tmp_path).message == f"'{tmp_path}' is a folder."
    assert image_error(tmp_path / "x").message == f"There is no file '{tmp_path / 'x'}'."
    assert "Not a directory" in image_error(file / "x").message
    assert image_error("a\0b").message == "'a\\x00b' cannot be read: no file can have that name."
    assert image_error(file).message.startswith(f"'{file}': ")
    assert image_error(file).code == "unsupported_image_type"
    assert len(image_error("x" * 100_000).message) < 400


@pytest.mark.skipif(os.name == "nt", reason="pipes in the file system are Unix's")
def test_pipes_devices_and_sockets_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert image_error(pipe).message == f"'{pipe}' is not a file."
    assert image_error("/dev/zero").message == "'/dev/zero' is not a file."
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "listener"))
        assert image_error(tmp_path / "listener").message.endswith("is not a file.")


def test_image_over_the_size_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded())
    os.truncate(path, MAX_IMAGE_BYTES)
    assert run(load_image(path)).image_url.startswith("data:image/png;base64,")
    os.truncate(path, MAX_IMAGE_BYTES + 1)
    assert image_error(path).code == "image_too_large"
    assert str(path) in image_error(path).message
    assert image_error(path.read_bytes()).code == "image_too_large"


@pytest.mark.parametrize("source", [None, 5, ["x.png"], object()])
def test_other_types_are_refused(source: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(load_image(source))
    assert (caught.value.code, caught.value.param) == ("invalid_type", "images")
    assert type(source).__name__ in caught.value.message


def test_unknown_detail_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(load_image(encoded(), "huge"))  # type: ignore[arg-type]
    assert caught.value.param == "detail"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pillow_pixels_are_unchanged(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.putpixel((2, 0), (1, 2, 3, 4)[: len(mode)] if mode in {"RGB", "RGBA", "LA"} else 1)
    reloaded = decoded(run(load_image(image)))
    assert reloaded.mode == mode
    assert reloaded.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("mode", "expected_mode"),
    [
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
        ("HSV", "RGB"),
        ("LAB", "RGB"),
        ("RGBX", "RGB"),
        ("RGBa", "RGBA"),
        ("La", "LA"),
        ("PA", "RGBA"),
        ("F", "L"),
        ("I", "I;16"),
        ("I;16B", "I;16"),
    ],
)
def test_modes_without_png_support_are_converted(mode: str, expected_mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.info["icc_profile"] = b"a profile for inks"
    reloaded = decoded(run(load_image(image)))
    assert (reloaded.mode, reloaded.size) == (expected_mode, (3, 2))
    assert "icc_profile" not in reloaded.info


def test_sixteen_bit_values_are_kept() -> None:
    image = Image.new("I", (1, 1), 300)
    assert decoded(run(load_image(image))).getpixel((0, 0)) == 300


def test_exif_orientation_is_kept_and_not_applied() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "a camera's maker"
    photo = Image.open(io.BytesIO(encoded("JPEG", exif=exif)))
    reloaded = decoded(run(load_image(photo)))
    assert reloaded.size == photo.size == (3, 2)
    assert reloaded.getexif()[ORIENTATION] == 6
    assert reloaded.getexif()[0x010F] == "a camera's maker"
    new_image = Image.new("RGB", (3, 2))
    new_image.getexif()[ORIENTATION] = 3
    assert decoded(run(load_image(new_image))).getexif()[ORIENTATION] == 3


def test_truncated_pillow_image_is_an_image_error() -> None:
    jpeg = encoded("JPEG")
    broken = Image.open(io.BytesIO(jpeg[:-4]))
    assert "cannot be encoded" in image_error(broken).message


def test_png_over_the_size_limit_is_refused() -> None:
    random_image = Image.frombytes("RGB", (2700, 2700), os.urandom(2700 * 2700 * 3))
    assert image_error(random_image).code == "image_too_large"


def test_images_load_without_pillow() -> None:
    code = (
        "import asyncio, sys\nfrom antiphon.chat.images import load_image\n"
        f"image = asyncio.run(load_image({encoded()!r}))\n"
        "assert image.image_url.startswith('data:image/png')\n"
        "assert not any(name.split('.')[0] == 'PIL' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
