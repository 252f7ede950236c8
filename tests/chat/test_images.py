"""Pictures: from a path, a URL, bytes or Pillow to an image that a message can hold."""

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


def opened(image: InputImage) -> Image.Image:
    head, _, data = image.image_url.partition(",")
    assert head == "data:image/png;base64"
    again = Image.open(io.BytesIO(base64.b64decode(data)))
    again.load()
    return again


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("as_path", [Path, str])
def test_a_file_is_sent_as_it_is_whatever_its_name_says(
    tmp_path: Path, kind: str, as_path: type
) -> None:
    data = encoded(kind)
    path = tmp_path / "picture.txt"
    path.write_bytes(data)
    image = run(load_image(as_path(path), "high"))
    assert image == InputImage(url_of(data, f"image/{kind.lower()}"), "high")


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_are_sent_as_they_are(wrap: Any) -> None:
    data = encoded()
    assert run(load_image(wrap(data))) == InputImage(url_of(data), "auto")


@pytest.mark.parametrize("url", ["https://example.com/cat.png?size=1", "HTTP://example.com/x"])
def test_the_web_is_left_to_the_provider(url: str) -> None:
    assert run(load_image(url, "low")) == InputImage(url, "low")


def test_a_data_url_gets_the_type_that_its_bytes_have() -> None:
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


def refused(source: Any) -> InvalidImageError:
    with pytest.raises(InvalidImageError) as caught:
        run(load_image(source))
    assert caught.value.param == "images"
    return caught.value


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    assert refused(tmp_path).message == f"'{tmp_path}' is a folder."
    assert refused(tmp_path / "x").message == f"There is no file '{tmp_path / 'x'}'."
    assert "Not a directory" in refused(file / "x").message
    assert refused("a\0b").message == "'a\\x00b' cannot be read: no file can have that name."
    assert refused(file).message.startswith(f"'{file}': ")
    assert refused(file).code == "unsupported_image_type"
    assert len(refused("x" * 100_000).message) < 400


@pytest.mark.skipif(os.name == "nt", reason="pipes in the file system are Unix's")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert refused(pipe).message == f"'{pipe}' is not a file."
    assert refused("/dev/zero").message == "'/dev/zero' is not a file."
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        assert refused(tmp_path / "door").message.endswith("is not a file.")


def test_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded())
    os.truncate(path, MAX_IMAGE_BYTES)
    assert run(load_image(path)).image_url.startswith("data:image/png;base64,")
    os.truncate(path, MAX_IMAGE_BYTES + 1)
    assert refused(path).code == "image_too_large"
    assert str(path) in refused(path).message
    assert refused(path.read_bytes()).code == "image_too_large"


@pytest.mark.parametrize("source", [None, 5, ["x.png"], object()])
def test_other_things_are_no_images(source: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(load_image(source))
    assert (caught.value.code, caught.value.param) == ("invalid_type", "images")
    assert type(source).__name__ in caught.value.message


def test_the_detail_is_one_of_three() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(load_image(encoded(), "huge"))  # type: ignore[arg-type]
    assert caught.value.param == "detail"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pixels_in_pillow_stay_as_they_are(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.putpixel((2, 0), (1, 2, 3, 4)[: len(mode)] if mode in {"RGB", "RGBA", "LA"} else 1)
    again = opened(run(load_image(image)))
    assert again.mode == mode
    assert again.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("mode", "becomes"),
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
def test_what_a_png_cannot_hold_is_converted(mode: str, becomes: str) -> None:
    image = Image.new(mode, (3, 2))
    image.info["icc_profile"] = b"a profile for inks"
    again = opened(run(load_image(image)))
    assert (again.mode, again.size) == (becomes, (3, 2))
    assert "icc_profile" not in again.info


def test_sixteen_bits_are_kept() -> None:
    image = Image.new("I", (1, 1), 300)
    assert opened(run(load_image(image))).getpixel((0, 0)) == 300


def test_the_orientation_is_neither_applied_nor_lost() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "a camera's maker"
    photo = Image.open(io.BytesIO(encoded("JPEG", exif=exif)))
    again = opened(run(load_image(photo)))
    assert again.size == photo.size == (3, 2)
    assert again.getexif()[ORIENTATION] == 6
    assert again.getexif()[0x010F] == "a camera's maker"
    drawn = Image.new("RGB", (3, 2))
    drawn.getexif()[ORIENTATION] = 3
    assert opened(run(load_image(drawn))).getexif()[ORIENTATION] == 3


def test_a_broken_image_in_pillow_is_no_accident() -> None:
    whole = encoded("JPEG")
    broken = Image.open(io.BytesIO(whole[:-4]))
    assert "cannot be encoded" in refused(broken).message


def test_a_png_that_becomes_too_large_is_refused() -> None:
    noise = Image.frombytes("RGB", (2700, 2700), os.urandom(2700 * 2700 * 3))
    assert refused(noise).code == "image_too_large"


def test_pillow_is_not_needed() -> None:
    code = (
        "import asyncio, sys\nfrom antiphon.chat.images import load_image\n"
        f"image = asyncio.run(load_image({encoded()!r}))\n"
        "assert image.image_url.startswith('data:image/png')\n"
        "assert not any(name.split('.')[0] == 'PIL' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
