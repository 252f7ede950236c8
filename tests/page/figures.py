"""Figures of docs/page.md that depend on the machine: ``make page-figures`` measures them.

Each is measured several times, and shown as its median, its best and its worst value. Times of
the clock are of little worth while the machine has other work; those of tasks are of CPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

from antiphon.models.scripted import ScriptedModel, ScriptedReply, say
from support.browser import chromium, until
from support.http_server import ThreadServer, serving

_TURNS = 10_000
_BRANCHES = 1_000
_RUNS = 9
_UPDATES = 2_000
_SECONDS_BETWEEN_EVENTS = 0.005
#: 1.6 Mbit/s, 150 ms a round trip, a quarter of this machine's speed.
_SLOW_NETWORK = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1_600_000 / 8,
    "uploadThroughput": 750_000 / 8,
}
_SLOWER = 4
#: ``shown(selector)``: when an element was first drawn, by the page's clock; ``first`` when one
#: was that the address asked for.
_WATCH = """
window.drawn = {};
window.watchFor = (name, selector) => {
  const look = () => {
    if (!document.querySelector(selector)) return requestAnimationFrame(look);
    requestAnimationFrame(() => setTimeout(() => { window.drawn[name] = performance.now(); }));
  };
  look();
};
watchFor("turn", "[data-turn]");
watchFor("composer", "#composer");
"""


class Figures:
    """What was measured, by name, printed as it comes."""

    def add(self, name: str, values: list[float], unit: str = "ms") -> None:
        middle, best, worst = statistics.median(values), min(values), max(values)
        others = f"(best {best:.1f}, worst {worst:.1f} of {len(values)})"
        sys.stdout.write(f"{name:60} {middle:7.1f} {unit} {others}\n")
        sys.stdout.flush()


def _reply(messages: list[dict[str, Any]]) -> ScriptedReply:
    question = messages[-1]["content"]
    if not question.startswith("stream "):
        return say("An answer.")
    pieces = _long_answer() if question == "stream maths" else _plain_answer()
    return say(*pieces, delay=_SECONDS_BETWEEN_EVENTS)


def _plain_answer() -> list[str]:
    """20 KB in as many pieces as 200 a second make in five seconds."""
    return [f"word{number} and more {'.' if number % 9 else chr(10) * 2}" for number in range(1000)]


def _long_answer() -> list[str]:
    """100 KB with 180 formulas, in pieces of 50 characters."""
    section = (
        "## Section {0}\n\nSome words with $x_{0}^2 + y^2 \\le z_{0}$ in them. "
        + "The words of a paragraph take some lines. " * 11
    )
    text = "\n\n".join(section.replace("{0}", str(number)) for number in range(180))
    return [text[at : at + 50] for at in range(0, len(text), 50)]


def _seed(server: ThreadServer) -> str:
    """A chat of ten thousand turns: the last one's id."""
    messages = []
    for number in range(_TURNS):
        text = f"Turn number {number}, with **bold** words and `code`.\n\n- one\n- two"
        at = 1_700_000_000 + 600 * number
        messages += [
            {"role": role, "content": text, "timestamp": at} for role in ("user", "assistant")
        ]
    job = server.request("POST", "/v1/import", json.dumps(messages).encode()).json
    while job["status"] == "running":
        time.sleep(0.1)
        job = server.get(f"/v1/import/{job['id']}").json
    chat = f"/v1/chats/{job['report'][0]['chat_id']}"
    while "unsearched_turns" in server.get(f"{chat}/search?query=turn&limit=1").json:
        time.sleep(0.1)
    return str(server.get(chat).json["head"])


@contextmanager
def _opened(browser: Browser, url: str, *, slow: bool = False) -> Iterator[Page]:
    """A page with nothing in its cache, at an address."""
    context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(_WATCH)
    page = context.new_page()
    if slow:
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", _SLOW_NETWORK)
        session.send("Emulation.setCPUThrottlingRate", {"rate": _SLOWER})
    page.goto(url)
    yield page
    context.close()


def measure_tasks(browser: Browser, figures: Figures, url: str, chat: str) -> None:
    """What first loads cost the page's thread, whatever else the machine does."""
    for path, name, shown in (
        ("/", "an empty page", "window.drawn.composer"),
        (f"/c/{chat}", f"a chat of {_TURNS} turns", "window.drawn.turn"),
    ):
        longest, sums = [], []
        for _ in range(_RUNS):
            with _opened(browser, "about:blank") as page:
                browser.start_tracing(page=page, categories=["toplevel", "__metadata"])
                page.goto(url + path)
                until(page, shown)
                one, every = _longest_task(browser.stop_tracing())
                longest.append(one)
                sums.append(every)
        figures.add(f"all tasks of {name} until it is drawn (CPU)", sums)
        figures.add("the longest of them", longest)


_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def measure_loads(browser: Browser, figures: Figures, url: str, chat: str) -> None:
    """First loads, on this machine and over a slow network."""
    for slow, name in ((False, ""), (True, ", slow network")):
        paints, composers, turns = [], [], []
        for _ in range(_RUNS):
            with _opened(browser, url, slow=slow) as page:
                composers.append(until(page, "window.drawn.composer"))
                paints.append(until(page, _FIRST_PAINT))
            with _opened(browser, f"{url}/c/{chat}", slow=slow) as page:
                turns.append(until(page, "window.drawn.turn"))
        figures.add(f"first paint of an empty page{name}", paints)
        figures.add(f"an empty page that can be typed into{name}", composers)
        figures.add(f"a chat of {_TURNS} turns, from its address{name}", turns)


def _timed(page: Page, selector: str, act: Callable[[], None]) -> float:
    """Milliseconds from the key or click in ``act`` until an element is drawn."""
    page.evaluate(
        """(selector) => {
          delete window.drawn.it;
          const begin = (event) => {
            window.begun = event.timeStamp;
            watchFor('it', selector);
          };
          for (const kind of ['keydown', 'click'])
            addEventListener(kind, begin, { once: true, capture: true });
        }""",
        selector,
    )
    act()
    return float(until(page, "window.drawn.it && window.drawn.it - window.begun"))


def measure_jumps(browser: Browser, figures: Figures, url: str, chat: str) -> None:
    """To a turn by its number, its day and a word of it."""
    numbers, days, hits = [], [], []
    with _opened(browser, f"{url}/c/{chat}") as page:
        until(page, "window.drawn.turn")
        for run in range(_RUNS):
            number = 500 + 1000 * run
            page.get_by_role("button", name="Go to a turn").click()
            page.get_by_label("Number", exact=True).fill(str(number + 1))
            press = lambda: page.keyboard.press("Enter")  # noqa: E731
            numbers.append(_timed(page, f'[data-position="{number}"]', press))
            page.get_by_role("button", name="Go to a turn").click()
            page.get_by_label("Day", exact=True).fill(f"2023-12-{run + 5:02}")
            seconds = time.mktime(time.strptime(f"2023-12-{run + 5:02}", "%Y-%m-%d"))
            first = -(-int(seconds - 1_700_000_000) // 600)
            days.append(_timed(page, f'[data-position="{first}"]', press))
            page.keyboard.press("Control+f")
            page.get_by_role("combobox").fill(f"number {number + 77}")
            page.locator(".option", has_text=f"Turn {number + 78}").first.wait_for()
            hits.append(_timed(page, f'[data-position="{number + 77}"].found', press))
    figures.add(f"jump to a turn of {_TURNS} by its number", numbers)
    figures.add("by its day", days)
    figures.add("by a hit of a search", hits)


def measure_windows(figures: Figures, server: ThreadServer, head: str) -> None:
    """What the server takes for 20 turns anywhere."""
    times = []
    for run in range(500):
        begin = time.perf_counter()
        server.get(f"/v1/responses/{head}/turns?limit=20&position={run * 7919 % _TURNS}")
        times.append((time.perf_counter() - begin) * 1000)
    times.sort()
    figures.add("20 turns of it, by the server", times)
    figures.add("95 of 100 of these take at most", [times[int(len(times) * 0.95)]])


def measure_branches(browser: Browser, figures: Figures, server: ThreadServer) -> None:
    """Another version of a turn, and the map of a thousand branches."""
    root = server.respond("root").json["id"]
    for number in range(_BRANCHES):
        made = server.respond(f"way {number}", previous_response_id=root).json["id"]
    again: list[float] = []
    for shown, name in (
        (".map .branch.current", f"the map of {_BRANCHES} branches, at the one in view"),
        (f".map li:nth-child({_BRANCHES}) button", "all rows of it"),
    ):
        maps = []
        for _ in range(_RUNS):
            with _opened(browser, f"{server.url}/r/{made}") as page:
                until(page, "window.drawn.turn")
                page.locator("[data-turn]").last.focus()
                open_map = lambda: page.keyboard.press("m")  # noqa: E731
                maps.append(_timed(page, shown, open_map))
        figures.add(name, maps)
    with _opened(browser, f"{server.url}/r/{root}") as page:
        until(page, "window.drawn.turn")
        for run in range(_RUNS):
            page.locator("[data-turn]").first.focus()
            ask = lambda: page.keyboard.press("r")  # noqa: E731
            again.append(_timed(page, f"[aria-label='Version {run + 2} of {run + 2}']", ask))
            until(page, "document.querySelector('[aria-label=\"Ask again\"]:not([disabled])')")
    figures.add("another answer: from the key to its version", again)


def measure_erasure(browser: Browser, figures: Figures, server: ThreadServer) -> None:
    """From the request of an erasure until another tab does not show the turn."""
    times = []
    for _ in range(_RUNS):
        head = server.respond("To be erased").json["id"]
        with _opened(browser, f"{server.url}/r/{head}") as page:
            until(page, "window.drawn.turn")
            page.wait_for_timeout(300)
            page.evaluate("watchFor('gone', '.conversation.empty')")
            begin = page.evaluate("performance.now()")
            server.request("DELETE", f"/v1/responses/{head}")
            times.append(float(until(page, "window.drawn.gone")) - begin)
    figures.add("an erasure by another program, until it is seen", times)


def _longest_task(trace: bytes) -> tuple[float, float]:
    """The longest task of the page's thread and all of them, in milliseconds of CPU."""
    events = json.loads(trace)["traceEvents"]
    threads = {
        (one["pid"], one["tid"])
        for one in events
        if one.get("name") == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }
    tasks: list[float] = []
    end = 0
    # What promises call may stand in no task: a task is whatever stands in nothing else.
    timed = (one for one in events if "tdur" in one and (one["pid"], one["tid"]) in threads)
    for one in sorted(timed, key=lambda one: (one["ts"], -one["dur"])):
        if one["ts"] >= end:
            tasks.append(one["tdur"] / 1000)
            end = one["ts"] + one["dur"]
    return max(tasks), sum(tasks)


_FRAMES = """() => {
  window.frames = [];
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) window.frames.push(duration);
  }).observe({ type: 'long-animation-frame' });
}"""


_IS_STREAMING = """document.querySelector('.composer [aria-label="Stop"]') !== null"""


def measure_streams(browser: Browser, figures: Figures, url: str, head: str) -> None:
    """200 events a second into a chat of ten thousand turns, while one types."""
    for kind, name in (("words", "20 KB"), ("maths", "100 KB with 180 formulas")):
        longest, sums, frames = [], [], []
        for _ in range(3):
            with _opened(browser, f"{url}/r/{head}") as page:
                until(page, "window.drawn.turn")
                page.get_by_role("textbox", name="Message").fill(f"stream {kind}")
                page.evaluate(_FRAMES)
                browser.start_tracing(page=page, categories=["toplevel", "__metadata"])
                page.keyboard.press("Enter")
                until(page, _IS_STREAMING)
                # A role or a name is looked for in the whole page, in the tasks that are measured.
                while page.evaluate(_IS_STREAMING):
                    page.keyboard.type("typed ", delay=30)
                one, every = _longest_task(browser.stop_tracing())
                longest.append(one)
                sums.append(every)
                frames.append(float(page.evaluate("Math.max(0, ...window.frames)")))
        figures.add(f"longest task while {name} stream and one types (CPU)", longest)
        figures.add("all tasks of it (CPU)", sums)
        figures.add("its longest frame (clock; 0: none over 50 ms)", frames)


_UPDATE_TIMES = """async (pieces) => {
  const { src } = document.querySelector('script[type=module]');
  const { MarkdownStream } = await import(src.replace('app.js', 'markdown.js'));
  const into = document.querySelector('#main').appendChild(document.createElement('div'));
  const stream = new MarkdownStream(into);
  const times = [];
  let text = '';
  for (const piece of pieces) {
    text += piece;
    const begin = performance.now();
    stream.update(text);
    times.push(performance.now() - begin);
    if (times.length % 20 === 0) await new Promise((done) => setTimeout(done));
  }
  return times;
}"""


def measure_updates(browser: Browser, figures: Figures, url: str) -> None:
    """Updates of an answer of 100 KB, by the renderer alone."""
    times: list[list[float]] = []
    for _ in range(_RUNS):
        with _opened(browser, url) as page:
            seen = page.evaluate(
                _UPDATE_TIMES,
                _long_answer()[:_UPDATES],
            )
            times.append(seen)
    means, worst = [statistics.mean(one) for one in times], [max(one) for one in times]
    figures.add(f"an update of an answer of 100 KB, {_UPDATES} of them: mean", means)
    figures.add("and the longest", worst)
    # What another program has held up takes long in some runs only.
    best = [min(one) for one in zip(*times, strict=True)]
    figures.add("and the longest by the best run of each", [max(best)])
    figures.add("and without the first, for which code is compiled", [max(best[1:])])


def main() -> None:
    figures = Figures()
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        serving(ScriptedModel(_reply), Path(folder) / "a.db") as server,
    ):
        measure_branches(browser, figures, server)
        head = _seed(server)
        chat = server.get(f"/v1/chats/{head}").json["id"]
        measure_loads(browser, figures, server.url, chat)
        measure_tasks(browser, figures, server.url, chat)
        measure_jumps(browser, figures, server.url, chat)
        measure_windows(figures, server, head)
        measure_erasure(browser, figures, server)
        measure_updates(browser, figures, server.url)
        measure_streams(browser, figures, server.url, head)


if __name__ == "__main__":
    main()
