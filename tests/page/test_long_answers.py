"""Long answers: made in slices, what is near the view first, and the view stays where it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from antiphon.models.scripted import ScriptedModel, say
from support.browser import until, watched
from support.http_server import serving

_FORMULAS = 180
_SECTION = (
    "Some words with $x_{number}^2 + y^2 \\le z_{number}$ in them, and more of them after it. "
    + "The words of a paragraph take some lines. " * 11
)
ANSWER = "\n\n".join(
    f"## Section {number}\n\n" + _SECTION.replace("number", str(number))
    for number in range(_FORMULAS)
)
#: A clock by which each piece of work takes a millisecond, and how often work was put off.
_CLOCK = """
  let now = 0;
  performance.now = () => (now += 1);
  window.slices = 0;
  const post = scheduler.postTask.bind(scheduler);
  scheduler.postTask = (run, options) => {
    window.slices += 1;
    return post(run, options);
  };
"""
#: Notes which formulas are made, in their order.
_NOTE_MADE = """
  window.made = [];
  new MutationObserver((records) => {
    for (const { target } of records) {
      const formula = target.closest?.('.maths');
      if (formula?.querySelector('.katex') && !made.includes(formula)) made.push(formula);
    }
  }).observe(document, { childList: true, subtree: true });
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page of a chat whose answer has 100 KB."""
    with serving(ScriptedModel(lambda _: say(ANSWER))) as server:
        server.respond("Write")
        (chat,) = server.get("/v1/chats").json["data"]
        yield f"{server.url}/c/{chat['id']}"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    origin, _, chat = address.partition("/c/")
    with watched(browser, origin) as watching:
        watching.context.add_init_script(_CLOCK)
        watching.context.add_init_script(_NOTE_MADE)
        opened = watching.open(f"/c/{chat}")
        expect(opened.get_by_role("heading", name=f"Section {_FORMULAS - 1}")).to_be_in_viewport()
        yield opened


def test_no_task_typesets_more_than_a_few_formulas(page: Page) -> None:
    until(page, f"document.querySelectorAll('.maths .katex').length === {_FORMULAS}")
    # Four milliseconds each.
    assert page.evaluate("window.slices") >= _FORMULAS / 4


def test_what_is_in_view_is_made_before_the_rest(page: Page) -> None:
    until(page, f"made.length === {_FORMULAS}")
    place = page.evaluate("made.indexOf([...document.querySelectorAll('.maths')].at(-1))")
    assert 0 <= place < _FORMULAS - 1


@pytest.mark.slow
def test_scrolling_through_parts_that_were_never_in_view_moves_nothing_in_it(page: Page) -> None:
    moved = page.evaluate(
        """async () => {
          const scroller = document.querySelector('.scroller');
          const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          const inView = () => [...document.querySelectorAll('.prose h3')]
            .filter((one) => one.checkVisibility({ contentVisibilityAuto: true }))
            .find((one) => one.getBoundingClientRect().top > 80);
          let most = 0;
          let steps = 0;
          for (; scroller.scrollTop > 600 && steps < 400; steps++) {
            const heading = inView();
            const before = heading.getBoundingClientRect().top;
            scroller.scrollTop -= 400;
            let off = 400;
            // A busy machine measures a part some frames later than it shows it.
            for (let frames = 0; frames < 2 || (off > 1 && frames < 30); frames++) {
              await frame();
              off = Math.abs(heading.getBoundingClientRect().top - before - 400);
            }
            most = Math.max(most, off);
          }
          return { most, steps };
        }"""
    )
    assert 20 < moved["steps"] < 400
    assert moved["most"] <= 1


def test_a_word_that_was_searched_is_marked_in_a_part_that_was_never_in_view(
    browser: Browser, address: str
) -> None:
    origin, _, chat = address.partition("/c/")
    with watched(browser, origin) as watching:
        page = watching.open(f"/c/{chat}")
        page.get_by_role("button", name="Search in this chat").click()
        page.get_by_role("combobox").fill("77")
        expect(page.get_by_role("option").first).to_be_visible()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Section 77", exact=True)).to_be_in_viewport()


def test_what_is_printed_is_the_whole_answer(page: Page) -> None:
    until(page, "document.querySelector('.maths .katex')")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('.prose h3').length") == _FORMULAS
    assert page.evaluate("document.querySelectorAll('.maths .katex').length") == _FORMULAS
