"""Chromium for tests: finds it, opens pages, and notes everything that a page must not do."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    APIResponse,
    Browser,
    BrowserContext,
    Locator,
    Page,
    Playwright,
    Request,
    Route,
    expect,
    sync_playwright,
)

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
#: Milliseconds after which what has not happened never will.
TIMEOUT = 30_000
# On a busy machine too.
expect.set_options(timeout=TIMEOUT)
#: Reports what the page's policy has kept from happening.
_WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def chromium_path() -> str:
    """The program; without one the test is skipped, in continuous integration it fails."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        message = "there is no Chromium: apt-get install chromium-headless-shell, or set CHROMIUM"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, closed at the end."""
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = launch(playwright, path)
        try:
            yield browser
        finally:
            browser.close()


def launch(playwright: Playwright, path: str) -> Browser:
    # The sandbox needs more than containers have; what is shown here comes from the tests.
    return playwright.chromium.launch(
        executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    )


@dataclass
class Watched:
    """A context whose pages are watched: requests, errors, violations of the policy."""

    context: BrowserContext
    origin: str
    requests: list[Request] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    #: Console messages and answers that a test expects.
    allowed: tuple[str, ...] = ()

    def open(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("pageerror", lambda error: self.errors.append(f"error: {error}"))
        page.on("console", self._note_console)
        page.goto(self.origin + path)
        return page

    def _note_console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def check(self) -> None:
        """Nothing left the origin, nothing was kept back by the policy, nothing failed."""
        elsewhere = [
            one.url
            for one in self.requests
            if not one.url.startswith((self.origin, "blob:", "data:"))
        ]
        assert not elsewhere, elsewhere
        violations = [
            one for page in self.context.pages for one in page.evaluate("window.violations || []")
        ]
        assert not violations, violations
        unexpected = [
            one for one in self.errors if not any(allowed in one for allowed in self.allowed)
        ]
        assert not unexpected, unexpected


@contextmanager
def watched(browser: Browser, origin: str, **options: Any) -> Iterator[Watched]:
    """A context of its own on one server, looked at when it ends."""
    options.setdefault("viewport", {"width": 1280, "height": 800})
    context = browser.new_context(**options)
    context.add_init_script(_WATCH_POLICY)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=origin)
    watching = Watched(context, origin)
    # A builtin method cannot be a listener of playwright's.
    context.on("request", lambda request: watching.requests.append(request))  # noqa: PLW0108
    try:
        yield watching
        watching.check()
    finally:
        context.close()


def until(page: Page, expression: str, argument: Any = None) -> Any:
    """Wait until an expression is true, and give its value.

    Playwright's own way of waiting evaluates text in the page, which the page's policy forbids.
    """
    deadline = time.monotonic() + TIMEOUT / 1000
    while not (value := page.evaluate(expression, argument)):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(15)
    return value


def paths_of(requests: list[Request]) -> list[str]:
    return [urlsplit(one.url).path for one in requests]


def send_message(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def wait_until_handed_over(page: Page) -> None:
    """Wait until the page knows that the server has all messages: else it would send one again."""
    until(page, _IS_HANDED_OVER)


#: Whether no message is queued in this browser, none is in the outbox, and none is being sent.
_IS_HANDED_OVER = """async () => {
  const app = document.querySelector("script[type=module]").src;
  const { state } = await import(app.replace(/app.js$/, "core.js"));
  return state.sending.length === 0 && new Promise((resolve, reject) => {
  const opening = indexedDB.open("antiphon.outbox", 1);
  opening.onerror = reject;
  opening.onupgradeneeded = () => opening.result.createObjectStore("messages", { keyPath: "id" });
  opening.onsuccess = () => {
    const messages = opening.result.transaction("messages").objectStore("messages");
    messages.count().onsuccess = ({ target }) => {
      opening.result.close();
      const isQueued = Object.keys(localStorage).some((key) => key.includes(".queue."));
      resolve(!isQueued && target.result === 0);
    };
  };
});
}"""


def hold_message(page: Page, act: Callable[[], object]) -> Route:
    """Does something, and holds back what the page then sends, until a test lets it go."""
    held: list[Route] = []
    page.route("**/v1/responses", lambda route: held.append(route), times=1)  # noqa: PLW0108
    act()
    deadline = time.monotonic() + TIMEOUT / 1000
    while not held:
        assert time.monotonic() < deadline, "Nothing was sent."
        page.wait_for_timeout(10)
    return held[0]


def click_often(button: Locator) -> None:
    """A hundred clicks before anything is drawn."""
    button.evaluate("(one) => { for (let n = 0; n < 100; n++) one.click() }")


class Held:
    """Requests that are held back until a test lets them go, each with its answer of then."""

    def __init__(
        self, page: Page, pattern: str, method: str = "GET", *, times: int | None = None
    ) -> None:
        self._page, self._method = page, method
        self._routes: list[tuple[Route, APIResponse]] = []
        self._is_open = False
        page.route(pattern, self._hold, times=times)

    def _hold(self, route: Route) -> None:
        if route.request.method != self._method or self._is_open:
            route.fallback()
            return
        answer = route.fetch()
        # Others may have been let go while this one was answered.
        if self._is_open:
            route.fulfill(response=answer)
        else:
            self._routes.append((route, answer))

    def wait(self, act: Callable[[], object]) -> None:
        """Does something, and waits until the server has answered what it asks."""
        act()
        deadline = time.monotonic() + TIMEOUT / 1000
        while not self._routes:
            assert time.monotonic() < deadline, "Nothing was asked."
            self._page.wait_for_timeout(10)

    def release(self) -> None:
        """Lets all of them go, and what is asked after them."""
        self._is_open = True
        for route, answer in self._routes:
            with self._page.expect_response(route.request.url):
                route.fulfill(response=answer)
