"""Images that go along with words: shown each time, kept once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from antiphon import (
    InvalidRequestError,
)
from antiphon.core.images import MAX_IMAGE_BYTES
from antiphon.errors import ImageInputUnsupportedError, InvalidImageError
from support.chat_harness import VARIANTS, ChatHarness, chat_harness, contents, images, png


@pytest.fixture(params=VARIANTS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness(request.param, tmp_path) as stage:
        yield stage


def test_pictures_are_shown_and_kept_once(stage: ChatHarness, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    chat = stage.new()
    web = "https://example.com/cat.png"
    chat.send("What is it?", images=[png(), path, str(path), web], detail="low")
    first = stage.sent_messages()
    assert first[0]["content"][0] == {"type": "text", "text": "What is it?"}
    data = images(first)[0]
    assert data.startswith("data:image/png;base64,")
    assert images(first) == [data, data, data, web]
    assert {part["image_url"]["detail"] for part in first[0]["content"][1:]} == {"low"}
    drawn = Image.new("RGB", (2, 2), "blue")
    list(chat.stream("And this?", images=[drawn, png()]))
    assert images(stage.sent_messages())[:4] == images(first)
    assert images(stage.sent_messages())[5] == data
    assert stage.sent_messages()[0] == first[0]
    assert stage.resume(chat.response_id).context() == chat.context()
    with sqlite3.connect(stage.file) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
        (blobs,) = [name for name in tables if "blob" in name and "auto" not in name][:1]
        (count,) = database.execute(f"SELECT count(*) FROM {blobs}").fetchone()
        assert count == 2
    database.close()
    assert data.partition(",")[2].encode() not in stage.stored_bytes(), "no base64 is kept"


def test_one_picture_needs_no_list(stage: ChatHarness, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    drawn = Image.new("RGB", (2, 2), "blue")
    alone: list[Any] = [path, str(path), png(), bytearray(png()), memoryview(png()), drawn]
    for one in alone:
        stage.new().send("What is it?", images=one)
        assert len(images(stage.sent_messages())) == 1
    stage.new().send(images=[png()])
    assert [part["type"] for part in stage.sent_messages()[0]["content"]] == ["image_url"]
    stage.new().send("Nothing.", images=None)
    assert contents(stage.sent_messages()) == ["Nothing."]


def test_what_is_no_picture_is_refused_and_nothing_kept(stage: ChatHarness, tmp_path: Path) -> None:
    chat = stage.new()
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
    assert (chat.response_id, stage.request_count, len(stage.recent())) == (head, 1, 1)


def test_a_model_that_reads_text_only_is_not_sent_pictures(stage: ChatHarness) -> None:
    chat = stage.new(settings=stage.make_settings(images=False))
    with pytest.raises(ImageInputUnsupportedError) as caught:
        chat.send("What is it?", images=[png()])
    assert caught.value.code == "image_input_unsupported"
    assert (chat.response_id, stage.request_count) == (None, 0)
