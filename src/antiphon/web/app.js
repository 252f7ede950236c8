/** App: the frame of the page: list of chats, notices, dialogs and keys. */
import { html, render, useEffect, useRef, useState } from "./vendor/preact.js";
import {
  api, dismiss, follow, icon, iconButton, keepWords, load, loadAll, navigate, notify, onFeed, openChannel, openDialog, parseRoute, query, readEarly, readFirst, request, save, set, startFeed, state, typedWords, useStore, whenIdle,
} from "./core.js";
import { Conversation, loadParts, startChat } from "./conversation.js";

const PAGE = 40;

/** A dialog is a module of its own, loaded when it is first opened, or before that in idle time: name -> file. */
const DIALOGS = {
  branches: "./branch_map.js", chat: "./chat_dialog.js", compare: "./compare.js", context: "./context_lens.js",
  help: "./help.js", inbox: "./inbox.js", jump: "./jump.js", key: "./key_dialog.js", model: "./model_dialog.js",
  palette: "./palette.js", replay: "./replay.js", share: "./share.js", transfer: "./transfer.js", turn: "./turn_dialog.js", usage: "./usage.js",
};
/** What it imports: named here, so that it comes at once and not after it. */
const importedBy = (name) => (["help", "key"].includes(name) ? ["./dialog.js"] : ["./dialog.js", "./programs.js"]);
const loadDialog = async (name) => (await Promise.all([DIALOGS[name], ...importedBy(name)].map((file) => import(file))))[0].default;

/** Loads what the page does not begin with, so that it is there at once, and also when the server is away. */
function loadOthers() {
  const left = [loadParts, ...Object.keys(DIALOGS).map((name) => () => loadDialog(name))];
  // What could not be loaded is asked for again when it is opened.
  const next = () => left.shift()?.().catch(() => {}).then(() => whenIdle(next));
  setTimeout(next, LATER);
}
const LATER = 1_000; // milliseconds after which the page does no more for its first view

// ---- the list of chats

/** The chats that pages of the list had: it is read on behind the last of these. Others come from the feed, or are pinned. */
const paged = new Set();

export async function loadChats() {
  const after = state.moreChats ? state.chats.findLast((one) => paged.has(one.id))?.id : undefined;
  try {
    const page = await readFirst("/v1/chats", { limit: PAGE, after });
    page.data.forEach((one) => paged.add(one.id));
    addChats(page.data);
    set({ moreChats: page.has_more, chatsError: null, isListed: true });
    countWaiting();
    // What is pinned is seen though it is old.
    if (!after && page.has_more) addChats((await api(query("/v1/chats", { pinned: true, limit: 100 }))).data);
  } catch (error) {
    set({ chatsError: error });
  }
}

/** Adds those of some chats that are not listed yet, where their last turn places them. */
function addChats(chats) {
  const known = new Set([...state.chats.map((one) => one.id), ...erased, ...leaving]);
  set({ chats: [...state.chats, ...chats.filter((one) => !known.has(one.id))].sort(byLastTurn) });
}

const byLastTurn = (one, other) => other.updated_at - one.updated_at;

const putChat = (chat) => leaving.has(chat.id) || set({
  chats: [chat, ...state.chats.filter((one) => one.id !== chat.id)].sort(byLastTurn),
  ...(state.chat?.id === chat.id ? { chat } : {}),
});

const removeChat = (id) => set({ chats: state.chats.filter((one) => one.id !== id) });

let asked = 0; // how often the calls that wait have been read
let answered = 0; // which of these readings is shown

/** Reads the calls that wait for somebody. What an older reading brings comes too late. */
export async function readApprovals() {
  const order = ++asked;
  const { data } = await api("/v1/approvals?limit=100");
  if (order < answered) return;
  answered = order;
  set({ approvals: data });
}

/** Takes a call from those that wait: what was read before has it yet. */
export function dropApproval(id) {
  answered = ++asked;
  set({ approvals: state.approvals.filter((one) => one.id !== id) });
}

/** Reads them where one does wait, or may in a chat that is not listed yet. */
function countWaiting() {
  const mayWait = state.moreChats || state.approvals?.length || state.chats.some((one) => one.status === "waiting");
  if (mayWait) readApprovals().catch(() => {});
}

/** Reads the rows that the feed has named: once for any number of events. */
const changed = new Set();
const erased = new Set(); // what was read of these before is no news
const leaving = new Set(); // those that will be erased, unless that is undone
let isWaitingChanged = false;
let timer = 0;
onFeed((event) => {
  if (event.type === "feed.reset") {
    set({ chats: [], moreChats: false, isListed: false });
    paged.clear();
    loadChats();
    loadParts().then(({ reload }) => reload());
    return;
  }
  if (event.type === "chat.erased") {
    erased.add(event.chat_id);
    removeChat(event.chat_id);
    forgetWordsOf(event.chat_id);
  } else if (event.chat_id) {
    erased.delete(event.chat_id);
    changed.add(event.chat_id);
    if (event.type === "turn.erased") forgetEdits(event);
  }
  isWaitingChanged ||= event.type === "turn.waiting" || state.approvals?.length > 0;
  timer ||= setTimeout(readChanged, 60);
});

/** Nothing that was typed in a chat outlives it, but a message that is being typed here: that is for a new chat. */
function forgetWordsOf(id) {
  const queued = loadAll(`queue.${id}.`);
  if (state.conversation?.chatId === id) {
    const words = [load("draft.new"), ...queued.map((one) => one.words), document.querySelector("#composer")?.value];
    save("draft.new", words.filter(Boolean).join("\n\n"));
  }
  for (const name of [`draft.${id}`, ...queued.map((one) => `queue.${id}.${one.id}`)]) save(name, null);
  for (const name of Object.keys(typedWords(id))) keepWords(id, name, null);
}

/** What was typed to take the place of a question contains it: it goes with it. */
function forgetEdits({ chat_id: chat, response_id: id, cascade }) {
  const { conversation } = state;
  const shown = conversation?.chatId === chat ? conversation.turns.map(({ response }) => response.id) : [];
  const stay = shown.slice(0, Math.max(0, shown.indexOf(id)));
  const isGone = (name) => name === `edit.${id}` || cascade && name.startsWith("edit.") && !stay.includes(name.slice(5));
  for (const name of Object.keys(typedWords(chat)).filter(isGone)) keepWords(chat, name, null);
}

/** Reads the row of a chat again. */
export function refreshChat(id) {
  changed.add(id);
  timer ||= setTimeout(readChanged, 60);
}

/** One reading after another, so that an older answer never comes in the place of a newer one. */
async function readChanged() {
  const ids = [...changed].filter((id) => !erased.has(id));
  changed.clear();
  await Promise.all(ids.map((id) => api(`/v1/chats/${id}`).then(
    (chat) => erased.has(chat.id) || putChat(chat), (error) => {
      if (error.status !== 404) return;
      erased.add(id);
      removeChat(id);
    })));
  if (isWaitingChanged) countWaiting();
  isWaitingChanged = false;
  timer = changed.size ? setTimeout(readChanged, 60) : 0;
}

function groups(chats) {
  const today = new Date().setHours(0, 0, 0, 0) / 1000;
  const named = [["Pinned", []], ["Today", []], ["Yesterday", []], ["Last week", []], ["Earlier", []]];
  for (const chat of chats) {
    const age = today - chat.updated_at;
    named[chat.pinned ? 0 : age <= 0 ? 1 : age <= 86400 ? 2 : age <= 7 * 86400 ? 3 : 4][1].push(chat);
  }
  return named.filter(([, list]) => list.length);
}

/** Opens a dialog from the list, which a narrow screen shows above all else. */
const openFromList = (name) => { set({ sidebar: false }); openDialog(name); };

function Sidebar() {
  const { chats, moreChats, isListed, chatsError, chat, sidebar, conversation, approvals } = useStore("chats", "moreChats", "isListed", "chatsError", "chat", "sidebar", "conversation", "approvals");
  const onScroll = (event) => {
    const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
    if (moreChats && scrollHeight - scrollTop - clientHeight < 400) loadChatsOnce();
  };
  return html`<nav class=${sidebar ? "sidebar open" : "sidebar"} aria-label="Chats">
    <div class="side-head">
      <a href="/" class="name" onClick=${startChat}>antiphon</a>
      ${iconButton("close", "Close the list", () => set({ sidebar: false }), { class: "icon-button menu-button" })}
    </div>
    <a href="/" class="side-row new-chat" onClick=${startChat}>${icon("new")}<span>New chat</span><kbd>Alt N</kbd></a>
    <button type="button" class="side-row" onClick=${() => openFromList("palette")}>${icon("search")}<span>Search</span><kbd>Ctrl K</kbd></button>
    <div class="chats" onScroll=${onScroll} tabindex="-1">
      ${groups(chats).map(([name, list]) => html`<section key=${name} aria-label=${name}><h2>${name}</h2><ul>
        ${list.map((one) => html`<${ChatRow} key=${one.id} chat=${one} current=${one.id === (chat?.id ?? conversation?.chatId)} />`)}</ul></section>`)}
      ${isListed && !chats.length && !chatsError && html`<p class="none">Your chats will be here, from every program that talks to this server. <button type="button" class="link" onClick=${() => openFromList("transfer")}>Bring some along</button></p>`}
      ${chatsError && chatsError.status !== 404 && html`<p class="none">${chatsError.message} <button type="button" class="link" onClick=${loadChats}>Try again</button></p>`}
    </div>
    <div class="side-foot">
      <button type="button" class="side-row" onClick=${() => openFromList("inbox")}>${icon("inbox")}<span>Approvals</span>${approvals?.length > 0 && html`<span class="count">${approvals.length}</span>`}</button>
      <span class="foot-icons">
        ${iconButton("chart", "Usage", () => openFromList("usage"))}
        ${iconButton("share", "Import and export", () => openFromList("transfer"))}
        ${iconButton("theme", "Light, dark or contrast", nextTheme)}
        ${iconButton("help", "Keys and help", () => openFromList("help"))}
      </span>
    </div>
  </nav>
  ${sidebar && html`<div class="shade" onClick=${() => set({ sidebar: false })}></div>`}`;
}

let loadingChats = false;
async function loadChatsOnce() {
  if (loadingChats) return;
  loadingChats = true;
  await loadChats();
  loadingChats = false;
}

function ChatRow({ chat, current }) {
  const row = useRef();
  // What is opened by its address or by a search is seen in the list too.
  useEffect(() => { if (current) row.current.scrollIntoView({ block: "nearest" }); }, [current]);
  return html`<li ref=${row} class=${current ? "chat-row current" : "chat-row"}>
    <a href=${`/c/${chat.id}`} aria-current=${current ? "page" : undefined} onClick=${follow} title=${chat.title ?? ""}>
      ${chat.status !== "idle" && html`<span class=${`status ${chat.status}`} role="img" aria-label=${chat.status === "running" ? "answering" : "waits for an approval"}></span>`}
      <span class="chat-title" dir="auto">${chat.title || "Untitled"}</span></a>
    ${iconButton("more", `More about ${chat.title || "this chat"}`, () => openDialog("chat", { chat }), { "aria-haspopup": "dialog" })}
  </li>`;
}

// ---- erasing with undo: the server is asked when the time is over

/** Erases what a path names in seven seconds, or as soon as the page is left; `bringBack` lists it again, and
 * `onUndo` is called where that was wished. */
export function eraseLater(path, words, bringBack, onUndo = () => {}) {
  let undone = false;
  const id = notify(words, { label: "Undo", run: () => {
    undone = true;
    bringBack();
    onUndo();
  } }, 7);
  const erase = () => {
    removeEventListener("pagehide", erase);
    clearTimeout(waiting);
    dismiss(id);
    // Goes on after the page is gone.
    if (!undone) request(path, { method: "DELETE", keepalive: true }).catch((error) => {
      // Somebody else was faster.
      if (error.status === 404) return;
      notify(error.message);
      bringBack();
    });
  };
  const waiting = setTimeout(erase, 7000);
  addEventListener("pagehide", erase);
}

export function eraseChat(chat) {
  leaving.add(chat.id);
  removeChat(chat.id);
  const wasOpen = state.chat?.id === chat.id;
  if (wasOpen) startChat();
  eraseLater(`/v1/chats/${chat.id}`, `“${chat.title || "Untitled"}” will be erased.`, () => {
    leaving.delete(chat.id);
    putChat(chat);
    // It may have gone on meanwhile.
    refreshChat(chat.id);
  }, () => wasOpen && navigate(`/c/${chat.id}`));
}

// ---- theme

const THEMES = ["system", "light", "dark", "contrast"];
function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
let themeNotice = null;
export function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(load("theme") ?? "system") + 1) % THEMES.length];
  save("theme", theme);
  applyTheme(theme);
  dismiss(themeNotice);
  themeNotice = notify(`Colours: ${theme === "system" ? "as the system" : theme}.`, null, 2);
}

// ---- dialogs and notices

function Dialogs() {
  const { dialog } = useStore("dialog");
  const [shown, setShown] = useState(null);
  useEffect(() => {
    let left = false;
    setShown(null);
    if (dialog) loadDialog(dialog.name).then((View) => !left && setShown({ dialog, View }),
      () => { if (left) return; notify(state.online ? "This part of the page could not be loaded." : "This needs the server, which is away: try again when it is back."); set({ dialog: null }); });
    return () => { left = true; };
  }, [dialog]);
  return shown && shown.dialog === dialog ? html`<${shown.View} ...${dialog} />` : null;
}

/** What has happened: within the dialog that is open, as nothing else can be clicked then. */
export function Notices() {
  const { notices, online } = useStore("notices", "online");
  // Whatever lasts covers nothing that is used meanwhile.
  return html`<div class="notices top" role="status">${!online && html`<p class="notice offline">Not connected. What you send waits, and is sent once.</p>`}</div>
  <div class="notices" role="status">
    ${notices.map((one) => html`<p class="notice" key=${one.id}>${one.text}${one.actions.map(({ label, run }) => html`<button type="button" class="link" onClick=${() => { run(); dismiss(one.id); }}>${label}</button>`)}</p>`)}
  </div>`;
}

// ---- keys

const isTyping = (target) => target.closest?.("input, textarea, select, [contenteditable]");
addEventListener("keydown", (event) => {
  const { key, ctrlKey, metaKey, altKey } = event;
  const act = (run) => { event.preventDefault(); run(); };
  // The search is being loaded: what is typed meanwhile is for it.
  if (state.dialog?.name === "palette" && (key.length === 1 || key === "Enter") && !ctrlKey && !metaKey && !document.querySelector("dialog[open]"))
    act(() => Object.assign(state.dialog, key === "Enter" ? { hasEnter: true } : { typed: (state.dialog.typed ?? "") + key }));
  else if ((ctrlKey || metaKey) && !altKey && key.toLowerCase() === "k") act(() => openDialog("palette"));
  // The browser's own search sees the turns in view only. Pressed again, it is that one.
  else if ((ctrlKey || metaKey) && !altKey && key.toLowerCase() === "f" && !state.dialog && state.chat && (state.conversation?.before || state.conversation?.after))
    act(() => openDialog("palette", { chat: state.chat }));
  else if (altKey && !ctrlKey && key.toLowerCase() === "n" && state.dialog?.name !== "key") act(() => { set({ dialog: null }); startChat(); });
  else if (state.dialog || ctrlKey || metaKey || altKey || isTyping(event.target)) return;
  else if (key === "?") act(() => openDialog("help"));
  else if (key === "/") act(() => document.querySelector("#composer")?.focus());
  else if (key === "[" || key === "]") act(() => loadParts().then((parts) => parts.showSiblingInView(key === "[" ? -1 : 1)));
  else if (key === "j" || key === "k") act(() => loadParts().then((parts) => parts.focusTurn(key === "j" ? 1 : -1)));
  else if (key === "e" || key === "r") act(() => loadParts().then((parts) => parts.actOnFocusedTurn(key)));
  else if (key === "i") act(() => openDialog("inbox"));
  else if (key === "m" && state.chat) act(() => openDialog("branches", { chat: state.chat }));
  else if (key === "Escape" && state.sidebar) act(() => set({ sidebar: false }));
  else if (key === "Escape") loadParts().then((parts) => parts.isRunningHere() && parts.stop());
});

// ---- files that are dropped: pictures are for the message, others are imported

addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); });
addEventListener("drop", (event) => {
  const files = [...event.dataTransfer.files];
  if (event.defaultPrevented || !files.length) return;
  event.preventDefault();
  const others = files.filter((one) => !one.type.startsWith("image/"));
  if (others.length) openDialog("transfer", { file: others[0] });
  else document.dispatchEvent(new CustomEvent("antiphon:pictures", { detail: files }));
});

// ---- the frame

/** Notices while no dialog is open. */
function PageNotices() {
  const { online, isModal } = useStore("online", "isModal");
  useEffect(() => { if (online && state.chatsError) loadChats(); }, [online]);
  return isModal ? null : html`<${Notices} />`;
}

function App() {
  const { route } = useStore("route");
  useEffect(() => {
    // A new chat that has just got its address is open already.
    if (route.kind === "new") { if (state.conversation?.chatId) set({ chat: null, conversation: null }); }
    else if (route.kind === "turn" || state.conversation?.chatId !== route.id) loadParts().then(({ openRoute }) => openRoute(route, { mark: route.mark }));
  }, [route]);
  const { chat } = useStore("chat");
  useEffect(() => { document.title = chat?.title ? `${chat.title} · antiphon` : "antiphon"; }, [chat]);
  return html`<a class="skip" href="#composer">To the message</a><${Sidebar} /><${Conversation} /><${PageNotices} /><${Dialogs} />`;
}

async function start() {
  // A worker of another program that had this address would answer in this server's place.
  navigator.serviceWorker?.getRegistrations().then((all) => all.forEach((one) => one.unregister()), () => {});
  applyTheme(load("theme") ?? "system");
  set({ route: parseRoute(location.pathname), model: load("model"), hasLeftovers: Boolean(load("outbox")) });
  await openChannel();
  // Before the files that draw it: a browser has six connections.
  const first = readEarly(state.route);
  if (state.route.kind !== "new") loadParts();
  const frame = document.querySelector("#app");
  frame.replaceChildren();
  render(html`<${App} />`, frame);
  await first;
  await loadChats();
  if (state.chatsError?.status !== 401) startFeed();
  if (!navigator.connection?.saveData) loadOthers();
  // What an earlier page could not send.
  if (state.hasLeftovers) loadParts().then(({ sendLeftovers }) => sendLeftovers());
}

start();
