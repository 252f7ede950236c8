"""Images in messages: sent with each request, stored once."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from antiphon import (
    InvalidRequestError,
)
from antiphon.core.images import MAX_IMAGE_BYTES
from antiphon.errors import ImageInputUnsupportedError, InvalidImageError
from support.chat_harness import ChatHarness, contents, images, png


def test_images_are_sent_each_time_and_stored_once(harness: ChatHarness, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    chat = harness.new()
    web = "https://example.com/cat.png"
    chat.send("What is it?", images=[png(), path, str(path), web], detail="low")
    first = harness.sent_messages()
    assert first[0]["content"][0] == {"type": "text", "text": "What is it?"}
    data = images(first)[0]
    assert data.startswith("data:image/png;base64,")
    assert images(first) == [data, data, data, web]
    assert {part["image_url"]["detail"] for part in first[0]["content"][1:]} == {"low"}
    pillow_image = Image.new("RGB", (2, 2), "blue")
    list(chat.stream("And this?", images=[pillow_image, png()]))
    assert images(harness.sent_messages())[:4] == images(first)
    assert images(harness.sent_messages())[5] == data
    assert harness.sent_messages()[0] == first[0]
    assert harness.resume(chat.response_id).context() == chat.context()
    with sqlite3.connect(harness.file) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
        (blobs,) = [name for name in tables if "blob" in name and "auto" not in name][:1]
        (count,) = database.execute(f"SELECT count(*) FROM {blobs}").fetchone()
        assert count == 2
    database.close()
    assert data.partition(",")[2].encode() not in harness.stored_bytes(), "no base64 is stored"


def test_single_image_needs_no_list(harness: ChatHarness, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    pillow_image = Image.new("RGB", (2, 2), "blue")
    alone: list[Any] = [path, str(path), png(), bytearray(png()), memoryview(png()), pillow_image]
    for one in alone:
        harness.new().send("What is it?", images=one)
        assert len(images(harness.sent_messages())) == 1
    harness.new().send(images=[png()])
    assert [part["type"] for part in harness.sent_messages()[0]["content"]] == ["image_url"]
    harness.new().send("Nothing.", images=None)
    assert contents(harness.sent_messages()) == ["Nothing."]


def test_invalid_image_is_refused_and_nothing_is_stored(
    harness: ChatHarness, tmp_path: Path
) -> None:
    chat = harness.new()
    head = chat.send("Hi.").response_id
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    wrong: list[tuple[Any, type[InvalidRequestError], str]] = [
        (b"not an image", InvalidImageError, "unsupported_image_type"),
        (b"", InvalidImageError, "invalid_image"),
        (large, InvalidImageError, "image_too_large"),
        (tmp_path / "none.png", InvalidImageError, "invalid_image"),
        (tmp_path, InvalidImageError, "invalid_image"),
        ("ftp://example.com/a.png", InvalidImageError, "invalid_image_url"),
        ("data:image/png;base64,%%%", InvalidImageError, "invalid_image"),
        (42, InvalidRequestError, "invalid_type"),
        ([png(), None], InvalidRequestError, "invalid_type"),
    ]
    for source, kind, code in wrong:
        for say in (chat.send, lambda *a, **b: list(chat.stream(*a, **b))):
            with pytest.raises(kind) as caught:
                say("What is it?", images=source)
            assert (caught.value.code, caught.value.param) == (code, "images")
    with pytest.raises(InvalidRequestError) as caught:
        chat.send("What is it?", images=[png()], detail="much")
    assert caught.value.param == "detail"
    assert (chat.response_id, harness.request_count, len(harness.response_ids())) == (head, 1, 1)


def test_images_are_refused_for_a_text_only_model(harness: ChatHarness) -> None:
    chat = harness.new(settings=harness.make_settings(images=False))
    with pytest.raises(ImageInputUnsupportedError) as caught:
        chat.send("What is it?", images=[png()])
    assert caught.value.code == "image_input_unsupported"
    assert (chat.response_id, harness.request_count) == (None, 0)
