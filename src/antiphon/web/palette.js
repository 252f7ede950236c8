/** Palette: search in every chat or in one, and everything that can be done, by name. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { api, icon, navigate, openDialog, query, set, state } from "./core.js";
import { nextTheme } from "./app.js";
import { loadParts, startChat } from "./conversation.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms, shellWord } from "./programs.js";

/** Name, icon, what it does, and the key that does it too. */
const COMMANDS = [
  ["New chat", "new", startChat, "Alt N"],
  ["Temporary chat", "temporary", () => { startChat(); set({ temporary: true }); }],
  ["Approvals", "inbox", () => openDialog("inbox"), "i"],
  ["Usage", "chart", () => openDialog("usage")],
  ["Import and export", "share", () => openDialog("transfer")],
  ["Model and system prompt", "palette", () => openDialog("model")],
  ["Light, dark or contrast", "theme", nextTheme],
  ["Keys and help", "help", () => openDialog("help"), "?"],
];
const lastTurn = () => state.conversation.turns.at(-1);
const act = (key) => loadParts().then((parts) => parts.actOnTurn(lastTurn(), key));
const CHAT_COMMANDS = [
  ["Edit the last question", "edit", () => act("e"), "e"],
  ["Ask the last question again", "redo", () => act("r"), "r"],
  ["What the model saw", "eye", () => openDialog("context", { turn: lastTurn() })],
  ["Replay the last answer", "play", () => openDialog("replay", { turn: lastTurn() })],
  ["Go to a turn", "right", () => loadParts().then(({ jumpTo }) => openDialog("jump", { total: state.conversation.total, jumpTo }))],
  ["Rename this chat", "edit", () => openDialog("chat", { chat: state.chat })],
  ["Map of branches", "branch", () => openDialog("branches", { chat: state.chat }), "m"],
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
  return { hits: found.data.map((one) => ({ id: one.match?.response_id ?? one.head, chat: one.id, title: one.title || "Untitled", excerpt: one.match?.excerpt })), more: found.has_more, pending: found.unsearched_turns };
}

const turnName = (hit) => (hit.position === undefined ? "Turn" : `Turn ${hit.position + 1}`);

/** What the search is for programs. */
function actionsOf(text, chat) {
  const words = text.trim();
  if (chat) return [{ name: "Search in this chat", path: query(`/v1/chats/${chat.id}/search`, { query: words || "a word" }) }];
  return words ? [{ name: "Search", path: query("/v1/chats", { query: words }), terminal: `antiphon search ${shellWord(words)}` }]
    : [{ name: "List the chats", path: "/v1/chats", terminal: "antiphon list" }];
}

/** An excerpt without the signs of Markdown; the words that were found stand between « and ». Pure. */
const excerptParts = (excerpt) => excerpt.replace(/[*`#|]+|:?-{2,}:?/g, " ").replace(/\s+/g, " ").split(/«([^«»]*)»/)
  .map((part, index) => (index % 2 ? html`<mark>${part}</mark>` : part));

/** `typed` is what was typed before it was there, `hasEnter`: and Enter after that. */
export default function Palette({ chat = null, typed = "", hasEnter = false }) {
  const [text, setText] = useState(typed);
  const [found, setFound] = useState({ text: "", hits: [], pending: 0 });
  const [index, setIndex] = useState(0);
  const list = useRef();
  const isEntered = useRef(hasEnter); // Enter came before what was found
  useEffect(() => {
    setIndex(0);
    if (!text.trim()) {
      setFound({ text, hits: [], pending: 0 });
      return undefined;
    }
    const control = new AbortController();
    const timer = setTimeout(() => searchServer(text.trim(), chat, control.signal)
      .then((answer) => setFound({ text, ...answer }), (error) => error.name !== "AbortError" && setFound({ text, hits: [], pending: 0, error })), 90);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [text]);
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const go = (path, mark) => { closeDialog(); navigate(path, { mark }); };
  const titled = chat || !words.length ? [] : state.chats.filter((one) => has(one.title ?? "", words) && !found.hits.some(({ chat: found }) => found === one.id)).slice(0, 6);
  const commands = (chat ? [] : [...COMMANDS, ...(state.chat && state.conversation?.turns.length ? CHAT_COMMANDS : [])]).filter(([name]) => has(name, words))
    .map(([title, sign, run, shortcut]) => ({ key: title, sign, title, shortcut, run: () => { closeDialog(); run(); } }));
  // A command that begins with what is typed is meant before words that were said; others come after these.
  const isMeant = ({ title }) => title.toLowerCase().startsWith(text.trim().toLowerCase());
  const rows = [
    ...commands.filter(isMeant),
    ...found.hits.map((one) => ({ key: `hit ${one.id}`, sign: "search", title: one.title, excerpt: one.excerpt, run: () => go(`/r/${one.id}`, text) })),
    ...titled.map((one) => ({ key: one.id, sign: "right", title: one.title, run: () => go(`/c/${one.id}`) })),
    ...commands.filter((one) => !isMeant(one)),
  ];
  const isSearched = found.text === text;
  const current = Math.min(index, rows.length - 1);
  const enter = () => {
    // Until all that is found has come, the first row may not be what is meant.
    isEntered.current = !isSearched && index === 0 && !rows.slice(0, 1).some((one) => commands.includes(one) && isMeant(one));
    if (!isEntered.current) rows[current]?.run();
  };
  useEffect(() => {
    if (!isSearched || !isEntered.current) return;
    isEntered.current = false;
    if (!found.error) rows[0]?.run();
  }, [isSearched]);
  useEffect(() => list.current?.children[current]?.scrollIntoView({ block: "nearest" }), [current]);
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setIndex(Math.max(0, Math.min(rows.length - 1, current + step)));
    } else if (event.key === "Escape" && !event.isComposing) {
      // A browser would only empty the field.
      event.preventDefault();
      closeDialog();
    } else if (event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      enter();
    }
  };
  return html`<${Dialog} title=${chat ? `Search in “${chat.title || "this chat"}”` : "Search and commands"}>
    <input type="search" class="palette-input" data-first role="combobox" aria-expanded="true" aria-controls="palette-list" aria-label="Words to find" autocomplete="off"
      aria-activedescendant=${rows[current] ? `palette-${current}` : undefined} placeholder=${chat ? "Any word that was said here" : "Any word that was said, or a command"} value=${text}
      onInput=${(event) => { isEntered.current = false; setText(event.target.value); }} onKeyDown=${onKeyDown} />
    <ul id="palette-list" class="rows" role="listbox" aria-label="Found" ref=${list}>
      ${rows.map((row, at) => html`<li key=${row.key} id=${`palette-${at}`} role="option" aria-selected=${at === current} class=${at === current ? "option current" : "option"}
        onClick=${row.run} onMouseMove=${() => at !== index && setIndex(at)}>${icon(row.sign)}<span><span class="option-title">${row.title}</span>${row.excerpt && html`<span class="excerpt">${excerptParts(row.excerpt)}</span>`}</span>${row.shortcut && html`<kbd aria-hidden="true">${row.shortcut}</kbd>`}</li>`)}
    </ul>
    <p class="hint" role="status">${found.error ? found.error.message : [
      words.length > 0 && isSearched && !rows.length && "Nothing was found. A search finds turns that have all of these words.",
      found.more && `The best ${found.hits.length} are here: another word finds fewer.`,
      found.pending && `${found.pending} turns are still being indexed.`].filter(Boolean).join(" ")}</p>
    <${FoldedPrograms} actions=${actionsOf(text, chat)} />
  <//>`;
}
