/** Turn list: the scrolling log of a conversation. The view moves by itself only at its end. */
import { Component, html } from "./vendor/preact.js";
import { icon, openDialog, state, typedWords, whenSeen } from "./core.js";
import { answerText, editName, questionText, Turn } from "./turns.js";
import { isRunningHere } from "./turn_actions.js";
import { change, goToEnd, jumpTo, readMore } from "./turn_window.js";
import { markWords } from "./text_marks.js";

const NEAR = 900; // pixels from an edge at which more is read
const AT_END = 40; // pixels from the end that count as the end
const STEP = 6; // turns that are drawn at once out of view

const keyOf = (turn) => turn.key ?? turn.response.id;

const LINE = 22; // pixels, or more
const CHARACTERS = 90; // of a line, or less

/** About how many pixels high a turn will be, or less. */
const leastHeight = (turn) => LINE * (4 + [questionText(turn), answerText(turn)].join("\n").split("\n")
  .reduce((lines, { length }) => lines + Math.min(1, length) + Math.floor(length / CHARACTERS), 0));

/** Where those of several turns begin and end that fill the view around what the list will scroll to. Pure. */
export function spanInView(turns, anchor, height) {
  const found = anchor?.at === "end" ? -1 : turns.findIndex((one) => one.response.id === anchor?.id);
  const at = found < 0 ? turns.length - 1 : found;
  let begin = at;
  let end = at + 1;
  for (let left = height; begin > 0 && left > 0; left -= leastHeight(turns[begin])) begin--;
  for (let left = height; end < turns.length && left > 0; left -= leastHeight(turns[end - 1])) end++;
  return [begin, end];
}

export class TurnList extends Component {
  atEnd = true;
  stayedAt = 0;
  turns = []; // those that are drawn, or will be
  part = null; // where those begin and end that are drawn first; null: all are drawn
  isQuiet = false; // whether what is drawn is not read out

  componentDidMount() {
    this.watcher = new ResizeObserver(() => this.settle());
    this.watcher.observe(this.list);
    this.watcher.observe(this.scroller);
    this.componentDidUpdate();
  }

  componentWillUnmount() {
    this.watcher.disconnect();
  }

  componentDidUpdate() {
    const { conversation } = state;
    const { anchor } = conversation;
    if (anchor && !conversation.loading && conversation.turns.length) {
      this.scrollTo(anchor);
      conversation.anchor = null;
    } else this.settle();
    if (this.part) whenSeen(() => this.drawMore());
  }

  /** Draws more of what is out of view. */
  drawMore() {
    if (!this.part || !this.list) return;
    const [begin, end] = this.part;
    const span = [Math.max(0, begin - STEP), Math.min(this.turns.length, end + STEP)];
    this.part = span[1] - span[0] < this.turns.length ? span : null;
    this.forceUpdate(() => this.onScroll());
  }

  /** What has changed in size or was read above does not move what is in view. */
  settle() {
    if (!this.atEnd) this.hold();
    else {
      this.held = null;
      this.stay();
    }
  }

  /** Keeps the block that is remembered where it is: also before another one is, as sizes may have changed. */
  hold() {
    const { element, offset } = this.held ?? {};
    if (element?.isConnected) this.scroller.scrollTop += this.offsetOf(element) - offset;
    this.remember();
  }

  offsetOf(element) {
    return element.getBoundingClientRect().top + this.scroller.scrollTop;
  }

  /** Remembers a block that begins in view, the same one as long as it does, and how far it is from the
   * beginning of all that can be scrolled. */
  remember() {
    const view = this.scroller.getBoundingClientRect();
    const begins = (one) => {
      const { top } = one.getBoundingClientRect();
      return top >= view.top && top < view.bottom;
    };
    let element = this.held?.element;
    if (!element?.isConnected || !begins(element)) {
      element = this.firstBlock(view.top);
      const next = element?.nextElementSibling;
      if (next && !begins(element) && begins(next)) element = next;
    }
    this.held = element && { element, offset: this.offsetOf(element) };
  }

  /** The first block that ends below a height. */
  firstBlock(top) {
    let found = null;
    for (let within = this.list; within; ) {
      within = [...within.children].find((one) => one.getBoundingClientRect().bottom > top);
      found = within ?? found;
      if (found?.matches(".prose > :not(.part), .part > *") || found?.getBoundingClientRect().top >= top) break;
    }
    return found;
  }

  article(id) {
    return this.list.querySelector(`[data-turn="${CSS.escape(id ?? "")}"]`);
  }

  /** The button that leads to the end is shown elsewhere only. */
  setAtEnd(atEnd) {
    if (atEnd === this.atEnd) return;
    this.atEnd = atEnd;
    this.forceUpdate();
  }

  scrollTo({ id, at, top, mark, focus = null }) {
    const article = this.article(id);
    this.held = null;
    if (at === "end" || !article) {
      this.setAtEnd(true);
      this.stayedAt = 0;
      this.stay();
      return;
    }
    this.setAtEnd(false);
    const box = article.getBoundingClientRect();
    const frame = this.scroller.getBoundingClientRect();
    const wanted = at === "top" ? top ?? frame.top : frame.top + Math.max(16, (frame.height - box.height) / 3);
    this.scroller.scrollTop += box.top - wanted;
    // The turn that had the focus is gone, and this one stands in its place.
    if (focus !== null && document.activeElement === document.body)
      (article.querySelector(`button[aria-label="${CSS.escape(focus)}"]:enabled`) ?? article).focus({ preventScroll: true });
    if (at === "center") {
      article.classList.add("found", "arrived");
      // Who has begun to type meanwhile goes on.
      if (!document.activeElement?.matches("input, textarea") || !document.activeElement.value) article.focus({ preventScroll: true });
      // Nobody has pressed a key to come here: the mark of the focus is for those who do.
      article.addEventListener("keydown", () => article.classList.remove("arrived"), { once: true });
      article.addEventListener("blur", () => article.classList.remove("arrived"), { once: true });
      setTimeout(() => article.classList.remove("found"), 2500);
      const marked = mark && markWords(article, mark, this.scroller);
      if (marked) this.held = { element: marked, offset: this.offsetOf(marked) };
    }
    this.onScroll();
  }

  /** At the end the view follows what grows there, unless the reader has just gone up: the event that says so comes later. */
  stay() {
    if (!this.atEnd || state.conversation?.after) return;
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    if (scrollTop < this.stayedAt && scrollHeight - scrollTop - clientHeight >= AT_END) return;
    this.scroller.scrollTop = scrollHeight;
    this.stayedAt = this.scroller.scrollTop;
  }

  onScroll = () => {
    // The event of a list that is gone by now comes all the same.
    if (!this.scroller) return;
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const below = scrollHeight - scrollTop - clientHeight;
    // What has grown since the view was last moved is no step of the reader's.
    const isLeft = below >= AT_END && (!this.atEnd || scrollTop < this.stayedAt);
    const atEnd = !isLeft && !state.conversation?.after;
    // What has become smaller, as a formula does once it is typeset, has moved the view, too.
    if (below < AT_END) this.stayedAt = scrollTop;
    this.setAtEnd(atEnd);
    if (scrollTop < NEAR && !this.part) readMore("before");
    if (below < NEAR && !this.part) readMore("after");
    if (!this.atEnd) this.hold();
    this.showPosition();
  };

  showPosition() {
    if (!this.counter) return;
    const article = this.atEnd ? this.list.lastElementChild : this.articleInTheMiddle();
    if (article) this.counter.textContent = `${Number(article.dataset.position) + 1} / ${state.conversation?.total}`;
  }

  articleInTheMiddle() {
    const middle = this.scroller.getBoundingClientRect().top + this.scroller.clientHeight / 3;
    return [...this.list.children].find((one) => one.getBoundingClientRect().bottom > middle);
  }

  jump = () => {
    const { total } = state.conversation;
    openDialog("jump", { total, jumpTo });
  };

  /** Where the turns begin and end that are drawn now: of some that are all new, those that will be in view. */
  spanToDraw({ turns, anchor }) {
    if (turns !== this.turns) {
      const known = new Set(this.turns.map(keyOf));
      const span = spanInView(turns, anchor, innerHeight);
      // Others have been opened: nothing of them is news.
      this.isQuiet = !turns.some((one) => known.has(keyOf(one)));
      this.part = this.isQuiet && span[1] - span[0] < turns.length ? span : null;
      this.turns = turns;
    }
    return this.part ?? [0, turns.length];
  }

  render({ conversation }) {
    const { turns, total, before, after, editing } = conversation;
    const [begin, end] = this.spanToDraw(conversation);
    const busy = isRunningHere();
    const words = typedWords();
    const last = turns.length - 1;
    return html`
      <div class="scroller" ref=${(one) => { this.scroller = one; }} onScroll=${this.onScroll} tabindex="0" role="region" aria-label="Conversation">
        ${before && html`<p class="more-turns" aria-hidden="true">Earlier turns…</p>`}
        <div class="turns" role="log" aria-label="Turns" aria-busy=${Boolean(busy)} aria-live=${this.isQuiet ? "off" : undefined} ref=${(one) => { this.list = one; }}>
          ${turns.map((turn, index) => index >= begin && index < end && html`<${Turn} key=${keyOf(turn)} turn=${turn} live=${turn.live} answeredBefore=${turns[index - 1]?.response.completed_at ?? 0}
            isLast=${index === last && !after} editing=${editing !== null && editing === turn.response.id} hasWords=${editName(turn) in words} busy=${busy} />`)}
        </div>
        ${after && html`<p class="more-turns" aria-hidden="true">Later turns…</p>`}
      </div>
      ${!this.atEnd && html`<button type="button" class="to-end" onClick=${() => { this.atEnd = !after; this.stayedAt = 0; goToEnd(); this.stay(); this.forceUpdate(); }} aria-label="Go to the end">${icon("down")}</button>`}
      ${total > 20 && html`<button type="button" class="position" title="Go to a turn" onClick=${this.jump}><span class="hidden">Go to a turn; now at </span><span ref=${(one) => { this.counter = one; if (one && !one.textContent) this.showPosition(); }}></span></button>`}`;
  }
}

/** Moves to the turn before or after the one that has the focus. */
export function focusTurn(step) {
  const articles = [...document.querySelectorAll("[data-turn]")];
  const index = articles.findIndex((one) => one.contains(document.activeElement));
  const next = articles[index < 0 ? articles.length - 1 : Math.max(0, Math.min(articles.length - 1, index + step))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}
