/** Markdown to elements: from the tokens of `marked`, with createElement and text nodes only.
 *
 * Markup in a text stays text. Links go to http, https and mailto; pictures elsewhere are shown as
 * links, so that no answer makes the page call anybody. */
import { Marked } from "./vendor/marked.js";
import { codeBlock } from "./code.js";
import { enqueue } from "./work_queue.js";

const paragraphOf = (text) => {
  const end = text.indexOf("\n\n");
  return end < 0 ? text.slice(0, 4000) : text.slice(0, Math.min(end, 4000));
};

const mathBlock = {
  name: "mathBlock",
  level: "block",
  // marked asks at every paragraph, with all the text that follows.
  start: (text) => paragraphOf(text).match(/^ {0,3}(?:\$\$|\\\[)/m)?.index,
  tokenizer(text) {
    const found = /^ {0,3}(?:\$\$([^]+?)\$\$|\\\[([^]+?)\\\])[ \t]*(?:\n|$)/.exec(text);
    return found ? { type: "mathBlock", raw: found[0], text: (found[1] ?? found[2]).trim() } : undefined;
  },
};

// Pandoc's rule, so that "$5 and $10" stays what it is: no space within the dollars, no digit
// after them.
const mathInline = {
  name: "mathInline",
  level: "inline",
  start: (text) => text.match(/\$|\\\(|\\\[/)?.index,
  tokenizer(text) {
    const found = /^\$\$([^$]+?)\$\$/.exec(text)
      ?? /^\$(?!\s)((?:[^$\\\n]|\\.)+?)(?<!\s)\$(?!\d)/.exec(text)
      ?? /^\\\(([^]+?)\\\)/.exec(text) ?? /^\\\[([^]+?)\\\]/.exec(text);
    if (!found) return undefined;
    return { type: "mathInline", raw: found[0], text: found[1].trim(), display: /^(\$\$|\\\[)/.test(found[0]) };
  },
};

const marked = new Marked({ gfm: true, breaks: true });
marked.use({ extensions: [mathBlock, mathInline] });

/** The blocks of a text, as tokens. `links` are definitions that stand elsewhere. */
function lex(text, links) {
  const lexer = new marked.Lexer(marked.defaults);
  if (links) Object.assign(lexer.tokens.links, links);
  return lexer.lex(text);
}

/** The blocks of a text, without what is in their lines: that takes most of the time. */
function lexBlocks(text) {
  const lexer = new marked.Lexer(marked.defaults);
  return lexer.blockTokens(text.replace(/\r\n?/g, "\n"), lexer.tokens);
}

const rawText = (tokens) => tokens.map(({ raw }) => raw).join("");

const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", reg: "®", trade: "™",
  hellip: "…", mdash: "—", ndash: "–", lsquo: "‘", rsquo: "’", ldquo: "“", rdquo: "”", times: "×",
  divide: "÷", deg: "°", plusmn: "±", rarr: "→", larr: "←", uarr: "↑", darr: "↓", bull: "•",
  middot: "·", para: "¶", sect: "§", euro: "€", pound: "£", yen: "¥", frac12: "½", le: "≤", ge: "≥",
  ne: "≠", infin: "∞", micro: "µ", alpha: "α", beta: "β", gamma: "γ", delta: "δ", pi: "π", ensp: " ", emsp: " ",
};

const decode = (text) => text.includes("&")
  ? text.replace(/&(?:#x([\da-f]{1,6})|#(\d{1,7})|(\w{2,8}));/gi, (whole, hex, decimal, name) => {
    if (name) return ENTITIES[name] ?? whole;
    const code = hex ? parseInt(hex, 16) : Number(decimal);
    return code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : "\ufffd";
  })
  : text;

let nesting = 0; // lists and quotes around what is made; a heading in one is below, and leads none

/** Blocks of words, each of which is written from its own side; those in a list or a quote from that of
 * its first words. */
const WRITTEN = new Set(["p", "h3", "h4", "h5", "h6", "ul", "ol", "blockquote", "table"]);

export const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  if (WRITTEN.has(name) && (!nesting || name === "table")) made.dir = "auto";
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

/** An address that may be followed; null: none. */
export function safeLink(address) {
  try {
    const url = new URL(decode(address));
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function inline(tokens, into) {
  for (const token of tokens ?? []) into.append(...inlineToken(token));
  return into;
}

function inlineToken(token) {
  switch (token.type) {
    case "text": case "escape":
      return token.tokens ? [...inline(token.tokens, document.createDocumentFragment()).childNodes] : [decode(token.text)];
    case "strong": return [inline(token.tokens, element("strong"))];
    case "em": return [inline(token.tokens, element("em"))];
    case "del": return [inline(token.tokens, element("del"))];
    case "codespan": return [element("code", {}, token.text)];
    case "br": return [element("br")];
    case "html": return [/^<br\s*\/?>$/i.test(token.raw.trim()) ? element("br") : token.raw];
    case "link": return [link(token)];
    case "image": return [image(token)];
    case "mathInline": return [maths(token.text, token.display)];
    case "checkbox": return [checkbox(token.checked)];
    default: return [token.raw ?? token.text ?? ""];
  }
}

function link(token) {
  const address = safeLink(token.href);
  if (!address) return inline(token.tokens, element("span", { class: "no-link" }));
  const made = element("a", { href: address, target: "_blank", rel: "noopener noreferrer" });
  if (token.title) made.title = decode(token.title);
  return inline(token.tokens, made);
}

function image(token) {
  if (/^data:image\/(?:png|jpeg|gif|webp);base64,[\w+/=]+$/.test(token.href))
    return element("img", { src: token.href, alt: decode(token.text) });
  const address = safeLink(token.href);
  const words = decode(token.text) || "picture";
  if (!address) return element("span", { class: "no-link" }, `[${words}]`);
  const text = `${words} (picture at ${new URL(address).host || address})`;
  return element("a", { href: address, target: "_blank", rel: "noopener noreferrer", class: "remote-picture" }, text);
}

const checkbox = (checked) => {
  const made = element("input", { type: "checkbox", disabled: "", "aria-label": checked ? "done" : "to do" });
  made.checked = checked;
  return made;
};

let renderMaths = null; // once KaTeX is loaded

function maths(text, display) {
  const made = element(display ? "div" : "span", { class: "maths", dir: "ltr" }, text);
  if (renderMaths) renderMaths(made, text, display);
  else import("./maths.js").then(({ loadMaths }) => loadMaths()).then((render) => {
    renderMaths = render;
    renderMaths(made, text, display);
  }, () => {});
  return made;
}

// Depths of the headings that the next one stands below. Texts leave levels out; readers that go
// from heading to heading need them without gaps.
let headings = [];

function headingLevel(depth) {
  if (nesting) return Math.min(3 + headings.length, 6);
  while (headings.at(-1) >= depth) headings.pop();
  headings.push(depth);
  return Math.min(2 + headings.length, 6);
}

/** The element of one block; null: it shows nothing. */
function block(token) {
  switch (token.type) {
    case "space": case "def": return null;
    case "heading": return inline(token.tokens, element(`h${headingLevel(token.depth)}`));
    case "paragraph": return inline(token.tokens, element("p"));
    case "text": return token.tokens ? inline(token.tokens, element("p")) : element("p", {}, decode(token.text));
    case "code": return codeBlock(token.text, token.lang ?? "");
    case "blockquote": return nested(element("blockquote"), (made) => blocks(token.tokens, made));
    case "list": return nested(element(token.ordered ? "ol" : "ul"), (made) => list(token, made));
    case "table": return table(token);
    case "hr": return element("hr");
    case "mathBlock": return maths(token.text, true);
    case "html": return element("p", { class: "plain" }, token.raw.trimEnd());
    default: return element("p", { class: "plain" }, token.raw ?? "");
  }
}

function nested(made, fill) {
  nesting++;
  try {
    return fill(made);
  } finally {
    nesting--;
  }
}

function blocks(tokens, into) {
  for (const token of tokens) {
    const made = block(token);
    if (made) into.append(made);
  }
  return into;
}

function list(token, made) {
  if (token.ordered && token.start !== 1) made.start = token.start;
  for (const item of token.items) {
    const entry = element("li", item.task ? { class: "task" } : {});
    for (const inner of item.tokens) {
      if (inner.type === "text" && !item.loose) inline(inner.tokens ?? [inner], entry);
      else if (inner.type === "checkbox") entry.append(checkbox(inner.checked));
      else blocks([inner], entry);
    }
    if (item.task && !entry.querySelector("input")) entry.prepend(checkbox(item.checked));
    made.append(entry);
  }
  return made;
}

function table(token) {
  const row = (cells, name, index) => element("tr", {}, ...cells.map((cell, column) => {
    const made = inline(cell.tokens, element(name, name === "th" && index < 0 ? { scope: "col" } : {}));
    if (token.align[column]) made.className = `align-${token.align[column]}`;
    return made;
  }));
  const made = element("table", {},
    element("thead", {}, row(token.header, "th", -1)),
    element("tbody", {}, ...token.rows.map((cells, index) => row(cells, "td", index))));
  return element("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, made);
}

/** Most blocks and, about, characters of one part of a long text. A browser lays out all children of
 * what has changed, and no part that has not or that is out of view. */
export const PART = { blocks: 24, characters: 4_000 };

function divide(tokens) {
  const parts = [];
  let size = Infinity;
  for (const token of tokens) {
    if (size >= PART.characters || parts.at(-1).length >= PART.blocks) {
      parts.push([]);
      size = 0;
    }
    parts.at(-1).push(token);
    size += token.raw.length;
  }
  return parts;
}

/** A whole text. Of a long one the beginning and the end are made at once, other parts by the work queue. */
export function renderMarkdown(text, into) {
  into.replaceChildren();
  const tokens = lexBlocks(text);
  const parts = divide(tokens);
  headings = [];
  parts.forEach((part, index) => {
    const place = index ? into.appendChild(element("div", { class: "part" })) : into;
    const above = [...headings];
    const fill = () => {
      headings = [...above];
      blocks(lex(rawText(part), tokens.links), place);
    };
    if (index === 0 || index >= parts.length - 2) fill();
    else enqueue(place, fill);
    headings = above;
    for (const { type, depth } of part) if (type === "heading") headingLevel(depth);
  });
  return into;
}

const FENCE = /^( {0,3})(`{3,}|~{3,})([^\n]*)\n/;

/** A text that grows: blocks that are complete are made once and stay, the end is made again.
 *
 * All but the last two blocks of the end are complete. Code between fences is added line by line,
 * with the line that is being written.
 * At the end the whole is read once more: what later text has changed (a link that is defined
 * further down) is made again, and nothing else. */
export class MarkdownStream {
  constructor(into) {
    this.into = into;
    this.text = "";
    this.settledTo = 0; // how much of the text has its final elements
    this.settled = []; // {raw, nodes}
    this.links = {};
    this.headings = []; // what those in the end stand below
    this.end = []; // elements of the end
    this.fence = null; // code that has begun
    this.held = null; // a long list or table that has begun
    this.place = into; // where blocks are added: a part of a long text
    this.placed = 0; // complete blocks before it
    this.placedTo = 0; // and their characters
  }

  /** Characters from which on a list or a table grows by its entries. */
  static LONG = 3_000;

  update(text) {
    if (text.length < this.text.length) this.#restart();
    this.text = text;
    if (this.fence && !this.#addCode()) return;
    if (this.held && this.#addEntries()) return;
    const rest = text.slice(this.settledTo);
    const opening = FENCE.exec(rest);
    for (const node of this.end) node.remove();
    this.end = [];
    if (this.settled.length - this.placed >= PART.blocks || this.settledTo - this.placedTo >= PART.characters) {
      this.placed = this.settled.length;
      this.placedTo = this.settledTo;
      this.place = this.into.appendChild(element("div", { class: "part" }));
    }
    if (opening && !opening[3].includes("`")) {
      this.#openFence(opening);
      return;
    }
    const tokens = lex(rest, this.links);
    Object.assign(this.links, tokens.links);
    const settling = Math.max(0, this.#lastFence(tokens) ?? tokens.length - 2);
    headings = [...this.headings];
    tokens.forEach((token, index) => {
      const made = block(token);
      if (index < settling) this.headings = [...headings];
      if (made) this.place.append(made);
      if (index < settling) {
        this.settled.push({ raw: token.raw, node: made });
        this.settledTo += token.raw.length;
      } else if (made) this.end.push(made);
    });
    if (settling && this.#restIsFence()) this.update(text);
    else if (rest.length > MarkdownStream.LONG && tokens.length === 1) this.#hold(tokens[0]);
  }

  /** Makes a list or a table grow by its entries: all of those but the last two stay. */
  #hold(token) {
    const [node] = this.end;
    const into = token.type === "list" ? node : token.type === "table" ? node.querySelector("tbody") : null;
    if (!into) return;
    const head = token.type === "table" ? /^[^\n]*\n[^\n]*\n/.exec(token.raw)?.[0] ?? "" : "";
    this.held = { node, into, type: token.type, head, begin: this.settledTo, at: this.settledTo + head.length, tail: [...into.children] };
    this.end = [];
    this.#keepEntries(token);
  }

  #keepEntries(token) {
    const { held } = this;
    const lines = this.text.slice(held.at).split("\n");
    const sizes = token.type === "list" ? token.items.map(({ raw }) => raw.length) : token.rows.map((_row, index) => lines[index].length + 1);
    while (held.tail.length > 2) {
      held.at += sizes.shift();
      held.tail.shift();
    }
  }

  /** Adds entries to what grows; false: it has ended. */
  #addEntries() {
    const { held } = this;
    const [first, ...others] = lex(held.head + this.text.slice(held.at), this.links);
    for (const node of [...held.tail, ...this.end]) node.remove();
    this.end = [];
    if (first?.type !== held.type) {
      // What has come since makes it something else.
      held.node.remove();
      this.held = null;
      return false;
    }
    const made = block(first);
    held.tail = [...(first.type === "list" ? made : made.querySelector("tbody")).children];
    held.into.append(...held.tail);
    if (others.length > 1) {
      const end = held.at + first.raw.length - held.head.length;
      this.settled.push({ raw: this.text.slice(held.begin, end), node: held.node, isHeld: true });
      this.settledTo = end;
      this.held = null;
      return false;
    }
    this.#keepEntries(first);
    return true;
  }

  /** Where an unfinished code block begins, which then goes on by lines. */
  #lastFence(tokens) {
    const last = tokens.at(-1);
    return last?.type === "code" && FENCE.test(last.raw) ? tokens.length - 1 : undefined;
  }

  #restIsFence() {
    return FENCE.test(this.text.slice(this.settledTo));
  }

  #restart() {
    this.into.replaceChildren();
    Object.assign(this, { settledTo: 0, settled: [], links: {}, headings: [], end: [], fence: null, held: null, place: this.into, placed: 0, placedTo: 0 });
  }

  #openFence([whole, indent, marks, info]) {
    const node = codeBlock("", info.trim(), { growing: true });
    this.place.append(node);
    this.fence = {
      node,
      begin: this.settledTo,
      at: this.settledTo + whole.length,
      indent: new RegExp(`^ {0,${indent.length}}`),
      closing: new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`),
      mayClose: new RegExp(`^ {0,3}${marks[0]}*[ \\t]*$`),
      isEmpty: true,
    };
    if (this.#addCode()) this.update(this.text);
  }

  /** Adds the lines that are complete, and shows the one that is not; true: the code has ended. */
  #addCode() {
    const { fence } = this;
    for (let end; (end = this.text.indexOf("\n", fence.at)) >= 0; ) {
      const line = this.text.slice(fence.at, end);
      fence.at = end + 1;
      fence.node.write("");
      if (fence.closing.test(line)) {
        fence.node.finish();
        this.settled.push({ raw: this.text.slice(fence.begin, fence.at), node: fence.node });
        this.settledTo = fence.at;
        this.fence = null;
        return true;
      }
      fence.node.add((fence.isEmpty ? "" : "\n") + line.replace(fence.indent, ""));
      fence.isEmpty = false;
    }
    const line = this.text.slice(fence.at);
    if (!fence.mayClose.test(line)) fence.node.write((fence.isEmpty ? "" : "\n") + line.replace(fence.indent, ""));
    return false;
  }

  finish(text = this.text) {
    if (this.fence) {
      const rest = text.slice(this.fence.at);
      if (this.fence.closing.test(rest)) {
        this.fence.node.finish();
        this.settled.push({ raw: text.slice(this.fence.begin), node: this.fence.node });
      }
    }
    const tokens = lexBlocks(text);
    const shown = tokens.filter(({ type }) => type !== "space" && type !== "def");
    const settled = this.settled.filter(({ node }) => node);
    // Whether a list's entries are paragraphs is known at its end.
    const isOther = ({ raw, node, isHeld }, index) => raw.trim() !== shown[index]?.raw.trim()
      || (isHeld && (shown[index].loose || node.querySelector("li > p")));
    const same = settled.findIndex(isOther);
    // Definitions that came after their use change what was made before.
    const count = Object.keys(tokens.links).length ? 0 : same < 0 ? settled.length : same;
    this.text = text;
    if (!count) {
      renderMarkdown(text, this.into);
      return;
    }
    const kept = new Set(settled.slice(0, count).map(({ node }) => node));
    const parts = [...this.into.querySelectorAll(":scope > .part")];
    for (const node of [this.into, ...parts].flatMap((part) => [...part.childNodes])) if (!kept.has(node) && !parts.includes(node)) node.remove();
    for (const part of parts) if (!part.firstChild) part.remove();
    headings = [];
    for (const { type, depth } of shown.slice(0, count)) if (type === "heading") headingLevel(depth);
    if (count === shown.length) return;
    const rest = rawText(tokens.slice(tokens.indexOf(shown[count])));
    blocks(lex(rest), this.into.querySelector(":scope > .part:last-child") ?? this.into);
  }
}
