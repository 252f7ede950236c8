"""What the browser keeps for the page: little of it, or nothing at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import Watched, send_message, watched
from support.http_server import ThreadServer
from support.page_model import PageModel

#: A browser that may keep nothing for this site.
_FORBID = """
  const forbid = () => { throw new DOMException("Access is denied.", "SecurityError"); };
  for (const name of ["localStorage", "sessionStorage", "indexedDB"])
    Object.defineProperty(window, name, { get: forbid });
  for (const name of ["request", "query"])
    LockManager.prototype[name] = async () => forbid();
  window.BroadcastChannel = class { constructor() { forbid(); } };
"""


@pytest.fixture
def forgetful(browser: Browser, server: ThreadServer) -> Iterator[Page]:
    with watched(browser, server.url) as watching:
        watching.context.add_init_script(_FORBID)
        yield watching.open()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of six million characters as it is sent: local storage has room for five."""
    path = tmp_path / "large.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(4_500_000))
    return path


def send_picture(page: Page, picture: Path, words: str) -> None:
    page.get_by_label("Pictures", exact=True).set_input_files(picture)
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()
    send_message(page, words)
    expect(page.get_by_alt_text("Picture 1")).to_have_count(0)


def test_picture_for_which_local_storage_has_no_room_is_sent(world: Watched, picture: Path) -> None:
    page = world.open()
    send_picture(page, picture, "What is this?")
    expect(page.get_by_text("You asked: What is this?")).to_be_visible()
    expect(page.get_by_alt_text("Picture that was sent")).to_be_visible()


def test_picture_for_which_local_storage_has_no_room_waits_for_an_answer(
    world: Watched, server: ThreadServer, model: PageModel, picture: Path
) -> None:
    page = world.open()
    send_message(page, "hold this")
    expect(page.get_by_text("First half,")).to_be_visible()
    send_picture(page, picture, "What is this?")
    send_message(page, "And then?")
    queue = page.get_by_role("list", name="Messages to be sent next").get_by_role("listitem")
    expect(queue).to_have_text(["What is this?", "And then?"])
    server.set(model.resume)
    expect(page.get_by_text("Messages so far: 5.")).to_be_visible()
    expect(page.get_by_alt_text("Picture that was sent")).to_be_visible()
    expect(page.locator(".question .bubble")).to_have_text(
        ["hold this", "What is this?", "And then?"]
    )


def test_words_of_a_picture_that_could_not_be_kept_are_given_back(
    world: Watched, server: ThreadServer, model: PageModel, picture: Path
) -> None:
    # Nothing can be queued behind the running turn of a conversation: its next message waits here.
    name = server.request("POST", "/v1/conversations", {}).json["id"]
    server.respond("First", model="grok-4", conversation=name)
    page = world.open()
    page.get_by_role("link", name="First").click()
    send_message(page, "hold this")
    expect(page.get_by_text("First half,")).to_be_visible()
    send_picture(page, picture, "What is this?")
    page.reload()
    server.set(model.resume)
    expect(page.get_by_text("Its pictures were too large to keep")).to_be_visible()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("What is this?")
    send_message(page, "What is this, in words?")
    expect(page.get_by_text("You asked: What is this, in words?")).to_be_visible()


def test_page_works_where_the_browser_keeps_nothing(forgetful: Page, server: ThreadServer) -> None:
    send_message(forgetful, "First")
    expect(forgetful.get_by_text("Messages so far: 1.")).to_be_visible()
    forgetful.get_by_role("button", name="Light, dark or contrast").click()
    send_message(forgetful, "Second")
    expect(forgetful.get_by_text("Messages so far: 3.")).to_be_visible()
    # The feed is read too.
    server.respond("From a program", model="grok-4")
    expect(forgetful.get_by_role("link", name="From a program")).to_be_visible()
    forgetful.reload()
    expect(forgetful.get_by_text("Messages so far: 3.")).to_be_visible()
