"""Images of a call: which files may be read, and that no way leads out of their folders."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

import pytest

from antiphon.api.mcp.tool_arguments import load_images
from antiphon.core.images import MAX_IMAGE_BYTES
from antiphon.errors import ForbiddenError, InvalidImageError, InvalidRequestError

GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that may be read, beside things that may not."""
    folder = tmp_path / "shared"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.gif").write_bytes(GIF)
    (folder / "deep" / "b.gif").write_bytes(GIF)
    (folder / "notes.txt").write_text("no image")
    (tmp_path / "secret.gif").write_bytes(GIF)
    (tmp_path / "shared-too").mkdir()
    (tmp_path / "shared-too" / "c.gif").write_bytes(GIF)
    (folder / "out.gif").symlink_to(tmp_path / "secret.gif")
    (folder / "away").symlink_to(tmp_path / "shared-too")
    (folder / "in.gif").symlink_to(folder / "deep" / "b.gif")
    (folder / "loop.gif").symlink_to(folder / "loop.gif")
    os.mkfifo(folder / "pipe.gif")
    return folder


def look(
    *paths: str | Path, roots: Sequence[Path] | None = (), urls: Sequence[str] = ()
) -> list[bytes]:
    """The bytes of the images at these paths, and the URLs of the others."""

    async def folders() -> Sequence[Path]:
        return roots or ()

    given = asyncio.run(
        load_images(urls, [str(path) for path in paths], "low", None if roots is None else folders)
    )
    assert all(image.detail == "low" for image in given)
    return [
        urlopen(image.image_url).read()
        if image.image_url.startswith("data:")
        else image.image_url.encode()
        for image in given
    ]


@pytest.mark.parametrize("path", ["a.gif", "deep/b.gif", "in.gif", "deep/../a.gif"])
def test_what_is_inside_is_read(root: Path, path: str) -> None:
    assert look(root / path, roots=[root]) == [GIF]
    # A path that does not say where it begins begins in the first folder.
    assert look(path, roots=[root, root.parent / "shared-too"]) == [GIF]


def test_a_folder_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert look(tmp_path / "link" / "a.gif", roots=[tmp_path / "link"]) == [GIF]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.gif",
        "deep/../../secret.gif",
        "out.gif",
        "away/c.gif",
        "../shared-too/c.gif",
        "/etc/passwd",
        "~/.bashrc",
        "../no such file",
        "/",
    ],
)
def test_no_way_leads_out(root: Path, path: str) -> None:
    with pytest.raises(ForbiddenError, match="not within the folders") as error:
        look(path if path.startswith("~") else root / path, roots=[root])
    assert "secret" not in error.value.message


@pytest.mark.parametrize("path", ["loop.gif", "pipe.gif", "deep", "none.gif", "notes.txt", "a\0b"])
def test_what_is_no_image_is_refused(root: Path, path: str) -> None:
    with pytest.raises((InvalidImageError, ForbiddenError)):
        look(f"{root}/{path}", roots=[root])


def test_an_image_has_its_size(root: Path) -> None:
    with (root / "big.gif").open("wb") as file:
        file.write(GIF)
        file.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(InvalidImageError) as error:
        look(root / "big.gif", roots=[root])
    assert error.value.code == "image_too_large"


def test_without_folders_nothing_is_read(root: Path) -> None:
    with pytest.raises(ForbiddenError, match="--root"):
        look(root / "a.gif")
    with pytest.raises(ForbiddenError, match="another machine"):
        look(root / "a.gif", roots=None)


def test_urls_are_passed_on_as_they_are() -> None:
    assert look(urls=["https://example.com/a.png", "HTTPS://x/y"]) == [
        b"https://example.com/a.png",
        b"HTTPS://x/y",
    ]


@pytest.mark.parametrize("url", ["http://x/y.png", "file:///etc/passwd", "blob:0", "", "a.png"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidImageError) as error:
        look(urls=[url])
    assert error.value.param == "image_urls"


@pytest.mark.parametrize("count", [0, 21])
def test_there_is_an_image_and_not_too_many(count: int) -> None:
    with pytest.raises(InvalidRequestError):
        look(urls=["https://x/y"] * count)
