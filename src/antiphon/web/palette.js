/** Palette: search in every chat or in one, and everything that can be done, by name. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { api, icon, navigate, openDialog, query, set, state } from "./core.js";
import { nextTheme, startChat } from "./app.js";
import { closeDialog, Dialog } from "./dialog.js";

const COMMANDS = [
  ["New chat", "new", startChat],
  ["Temporary chat", "temporary", () => { startChat(); set({ temporary: true }); }],
  ["Approvals", "inbox", () => openDialog("inbox")],
  ["Usage", "chart", () => openDialog("usage")],
  ["Import and export", "share", () => openDialog("transfer")],
  ["Model and system prompt", "palette", () => openDialog("model")],
  ["Light, dark or contrast", "theme", nextTheme],
  ["Keys and help", "help", () => openDialog("help")],
];
const CHAT_COMMANDS = [
  ["Rename this chat", "edit", () => openDialog("chat", { chat: state.chat })],
  ["Map of branches", "branch", () => openDialog("branches", { chat: state.chat })],
  ["Share or export this chat", "share", () => openDialog("share", { chat: state.chat })],
];

const has = (text, words) => words.every((word) => text.toLowerCase().includes(word));

/** What the search finds: commands and titles at once, words in chats from the server. */
async function searchServer(text, chat, signal) {
  if (chat) {
    const found = await api(query(`/v1/chats/${chat.id}/search`, { query: text, limit: 30 }), { signal });
    return { hits: found.data.map((one) => ({ id: one.response_id, title: turnName(one), excerpt: one.excerpt })), more: found.has_more, pending: found.unsearched_turns };
  }
  const found = await api(query("/v1/chats", { query: text, limit: 20 }), { signal });
  return { hits: found.data.map((one) => ({ id: one.match?.response_id ?? one.head, title: one.title || "Untitled", excerpt: one.match?.excerpt })), more: found.has_more, pending: found.unsearched_turns };
}

const turnName = (hit) => (hit.position === undefined ? "Turn" : `Turn ${hit.position + 1}`);

/** `typed` is what was typed before it was there. */
/** An excerpt without the signs of Markdown; the words that were found stand between « and ». Pure. */
const excerptParts = (excerpt) => excerpt.replace(/[*`#|]+|:?-{2,}:?/g, " ").replace(/\s+/g, " ").split(/«([^«»]*)»/)
  .map((part, index) => (index % 2 ? html`<mark>${part}</mark>` : part));

export default function Palette({ chat = null, typed = "" }) {
  const [text, setText] = useState(typed);
  const [found, setFound] = useState({ hits: [], pending: 0 });
  const [index, setIndex] = useState(0);
  const list = useRef();
  useEffect(() => {
    setIndex(0);
    if (!text.trim()) {
      setFound({ hits: [], pending: 0 });
      return undefined;
    }
    const control = new AbortController();
    const timer = setTimeout(() => searchServer(text.trim(), chat, control.signal)
      .then(setFound, (error) => error.name !== "AbortError" && setFound({ hits: [], pending: 0, error })), 90);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [text]);
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const go = (path, mark) => { closeDialog(); navigate(path, { mark }); };
  const titled = chat || !words.length ? [] : state.chats.filter((one) => has(one.title ?? "", words)).slice(0, 6);
  const rows = [
    ...(chat ? [] : [...COMMANDS, ...(state.chat ? CHAT_COMMANDS : [])].filter(([name]) => has(name, words))
      .map(([title, sign, run]) => ({ key: title, sign, title, run: () => { closeDialog(); run(); } }))),
    ...titled.map((one) => ({ key: one.id, sign: "right", title: one.title, run: () => go(`/c/${one.id}`) })),
    ...found.hits.map((one) => ({ key: `hit ${one.id}`, sign: "search", title: one.title, excerpt: one.excerpt, run: () => go(`/r/${one.id}`, text) })),
  ];
  if (words.length && !chat) rows.sort((one, other) => Boolean(other.excerpt) - Boolean(one.excerpt));
  const current = Math.min(index, rows.length - 1);
  useEffect(() => list.current?.children[current]?.scrollIntoView({ block: "nearest" }), [current]);
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setIndex(Math.max(0, Math.min(rows.length - 1, current + step)));
    } else if (event.key === "Enter" && rows[current]) {
      event.preventDefault();
      rows[current].run();
    }
  };
  return html`<${Dialog} title=${chat ? `Search in “${chat.title || "this chat"}”` : "Search and commands"}>
    <input type="search" class="palette-input" data-first role="combobox" aria-expanded="true" aria-controls="palette-list" aria-label="Words to find" autocomplete="off"
      aria-activedescendant=${rows[current] ? `palette-${current}` : undefined} placeholder=${chat ? "Any word that was said here" : "Any word that was said, or a command"} value=${text}
      onInput=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown} />
    <ul id="palette-list" class="rows" role="listbox" aria-label="Found" ref=${list}>
      ${rows.map((row, at) => html`<li key=${row.key} id=${`palette-${at}`} role="option" aria-selected=${at === current} class=${at === current ? "option current" : "option"}
        onClick=${row.run} onMouseMove=${() => at !== index && setIndex(at)}>${icon(row.sign)}<span><span class="option-title">${row.title}</span>${row.excerpt && html`<span class="excerpt">${excerptParts(row.excerpt)}</span>`}</span></li>`)}
    </ul>
    <p class="hint" role="status">${found.error ? found.error.message : words.length && !rows.length ? "Nothing was found." : [
      found.more && `The best ${found.hits.length} are here: another word finds fewer.`,
      found.pending && `${found.pending} turns are still being indexed.`].filter(Boolean).join(" ")}</p>
  <//>`;
}
