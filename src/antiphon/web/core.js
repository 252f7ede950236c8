/** Core: state, addresses, API requests, event streams and the feed. */
import { Component, h, html, useLayoutEffect, useReducer, useRef, useState } from "./vendor/preact.js";

// ---- state: one object, changed by `set` alone

export const state = {
  route: null, // {kind: "new" | "chat" | "turn", id}
  chats: [], // rows of the list, newest first
  moreChats: false, // whether the list goes on
  isListed: false, // whether the list has been read
  chatsError: null,
  chat: null, // the chat that is open
  conversation: null, // what of it is shown: see conversation.js
  dialog: null, // {name, ...what the dialog needs}
  isModal: false, // whether one is open: what is behind it cannot be used
  notices: [],
  sending: [], // the ids of the chats to which this page sends something, one for each message
  hasLeftovers: false, // whether an earlier page's messages may be in the outbox, and are not sent yet
  isAway: false, // whether something that is to be shown waits for the server
  online: true, // whether the feed is connected, or has never been tried
  approvals: null, // calls that wait for somebody, once they have been read
  models: null,
  sidebar: false, // open on a narrow screen
  temporary: false, // the next new chat stores nothing
};
const listeners = new Set();

export function set(changes) {
  Object.assign(state, changes);
  for (const listener of [...listeners]) listener();
}

/** Renders the calling component again whenever one of these values changes. */
export function useStore(...names) {
  const [, renderAgain] = useReducer((count) => count + 1, 0);
  const rendered = useRef();
  rendered.current = names.map((name) => state[name]);
  useLayoutEffect(() => {
    const listener = () => {
      if (names.some((name, index) => state[name] !== rendered.current[index])) renderAgain();
    };
    listeners.add(listener);
    listener();
    return () => listeners.delete(listener);
  }, []);
  return state;
}

/** A component that is rendered again only when one of its properties is another object. */
export function memo(render) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const names = Object.keys(next);
      return names.length !== Object.keys(this.props).length
        || names.some((name) => next[name] !== this.props[name]);
    }
    render() {
      return h(render, this.props);
    }
  };
}

/** Runs something once what is drawn now has been seen. */
export const whenSeen = (run) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(run)));

/** Runs something when the page has nothing to do; not every browser says when that is. */
export const whenIdle = (run) => (window.requestIdleCallback ?? setTimeout)(run);

/** A notice at the bottom of the window; `actions` are {label, run}, one or several. */
export function notify(text, actions = [], seconds = 6) {
  const notice = { id: crypto.randomUUID?.() ?? String(Math.random()), text, actions: [actions ?? []].flat() };
  set({ notices: [...state.notices.slice(-2), notice] });
  if (seconds) setTimeout(() => dismiss(notice.id), seconds * 1000);
  return notice.id;
}

export const dismiss = (id) => set({ notices: state.notices.filter((one) => one.id !== id) });

/** Opens a dialog in the place of any other but that for the key, without which none has anything to show. */
export function openDialog(name, more = {}) {
  if (!isKeyAsked()) set({ dialog: { name, ...more } });
}

const isKeyAsked = () => state.dialog?.name === "key";

// ---- icons: lines on a grid of 24

const ICONS = {
  attach: "M21 12l-8.5 8.5a5.5 5.5 0 0 1-8-8L13 4a3.7 3.7 0 0 1 5.300 5.300L9.800 17.800a1.800 1.800 0 0 1-2.600-2.600L15 7.500",
  branch: "M6 4v16M6 14c0-4 12-2 12-8M18 6a2 2 0 1 0 0-.01M6 20a2 2 0 1 0 0-.01",
  chart: "M4 20V10M10 20V4M16 20v-7M22 20H2",
  check: "M5 13l4 4L19 7",
  choose: "M7 10l5 5 5-5",
  close: "M6 6l12 12M18 6L6 18",
  code: "M8 7l-5 5 5 5M16 7l5 5-5 5",
  compare: "M4 5h6v14H4zM14 5h6v14h-6z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  down: "M12 5v14M6 13l6 6 6-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  help: "M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 17.500v.01M12 22a10 10 0 1 0 0-20 10 10 0 0 0 0 20z",
  inbox: "M3 13l3-8h12l3 8v6H3zM3 13h5l1.500 3h5l1.500-3h5",
  left: "M15 5l-7 7 7 7",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M4.500 12h1M11.500 12h1M18.500 12h1M5 11.700v.6M12 11.700v.6M19 11.700v.6",
  new: "M12 5H5v14h14v-7M18 3l3 3-8.500 8.500L9 15l.5-3.500z",
  palette: "M4 6h16M4 12h10M4 18h7",
  pin: "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
  play: "M7 5l11 7-11 7z",
  redo: "M20 5v5h-5M20 10a8 8 0 1 0 0 5",
  right: "M9 5l7 7-7 7",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l5 5",
  send: "M12 20V5M6 11l6-6 6 6",
  share: "M12 15V3M8 7l4-4 4 4M5 12v8h14v-8",
  stop: "M7 7h10v10H7z",
  temporary: "M4 12a8 8 0 0 1 8-8M4 12a8 8 0 0 0 2 5M12 20a8 8 0 0 0 8-8M12 8v4l3 2",
  theme: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
};

export const icon = (name) => html`<svg viewBox="0 0 24 24" aria-hidden="true" class="icon"><path d=${ICONS[name]} /></svg>`;

/** A button that shows an icon only; `label` is its name, and what a pointer is shown. */
export const iconButton = (name, label, onClick, more = {}) =>
  html`<button type="button" class="icon-button" aria-label=${label} title=${label} onClick=${onClick} ...${more}>${icon(name)}</button>`;

// ---- storage: this origin may be another program's tomorrow, so every name has a prefix

const PREFIX = "antiphon.";

/** What the browser does not keep, as there is no room or it may not: this page has it until it is closed. */
const unsaved = new Map();

export function load(name, storage = "localStorage") {
  if (unsaved.has(name)) return unsaved.get(name);
  try {
    return JSON.parse(window[storage].getItem(PREFIX + name));
  } catch {
    return null;
  }
}

/** All values whose names begin with `prefix`. */
export function loadAll(prefix) {
  let names = [...unsaved.keys()];
  try {
    names = names.concat(Object.keys(localStorage).filter((one) => one.startsWith(PREFIX)).map((one) => one.slice(PREFIX.length)));
  } catch {
    // Nothing is kept here.
  }
  return [...new Set(names)].filter((one) => one.startsWith(prefix)).map((one) => load(one)).filter((one) => one !== null);
}

/** Keeps a value for this page and the next; `rest` is what that gets if there is no room for all of it. */
export function save(name, value, { storage = "localStorage", rest = null } = {}) {
  unsaved.delete(name);
  if (put(name, value, storage)) return;
  unsaved.set(name, value);
  // Nothing older stays in its place.
  if (!put(name, rest, storage)) put(name, null, storage);
}

/** False: the browser has no room for it, or is forbidden to keep anything. */
function put(name, value, storage) {
  try {
    if (value === null || value === "") window[storage].removeItem(PREFIX + name);
    else window[storage].setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Runs something while no other tab holds the same lock; `options` as the browser has them. */
export async function withLock(name, run, options = {}) {
  let isBegun = false;
  const begin = (lock) => {
    isBegun = true;
    return run(lock);
  };
  try {
    await navigator.locks.request(name, options, begin);
  } catch (error) {
    if (isBegun) throw error;
    // No browser of old has locks, and none that may keep nothing.
    await run(true);
  }
}

/** The names of the locks that are held, by any tab. */
export async function heldLocks() {
  try {
    return (await navigator.locks.query()).held.map(({ name }) => name);
  } catch {
    return [];
  }
}

// ---- words that are typed into a box and not sent yet, by chat: there until they are sent or the chat is erased

const typed = { string: new Map(), object: new WeakMap() }; // chat -> {name: text}; one that is not stored is an object

/** The open chat as words are kept by it. */
export function openChat() {
  const { conversation, temporary } = state;
  if (conversation?.chatId) return conversation.chatId;
  if (conversation?.loading || conversation?.turns.length) return conversation.id;
  return temporary ? {} : "new";
}

/** What is typed in a chat: {name: text}. Another tab may have other words. */
export function typedWords(chat = openChat()) {
  const all = typed[typeof chat];
  if (!all.has(chat)) all.set(chat, (typeof chat === "string" && load(`words.${chat}`)) || {});
  return all.get(chat);
}

/** Keeps words by a name; null: those are sent, or nobody wants them. */
export function keepWords(chat, name, text) {
  const change = ({ [name]: _, ...others }) => (text === null ? others : { ...others, [name]: text });
  typed[typeof chat].set(chat, change(typedWords(chat)));
  if (typeof chat !== "string") return;
  const kept = change(load(`words.${chat}`) ?? {});
  save(`words.${chat}`, Object.keys(kept).length ? kept : null);
}

/** The text of a box as `useState` has it: a reload, another chat or a closed dialog leaves it as it is. */
export function useWords(chat, name, initial = "") {
  const [text, setText] = useState(typedWords(chat)[name] ?? initial);
  return [text, (words) => {
    setText(words ?? initial);
    keepWords(chat, name, words);
  }];
}

/** The name by which a remark on a call is kept, in its chat and in the inbox. */
export const remarkName = ({ id }) => `remark.${id}`;

/** Model and system prompt that were chosen for the next turn; null: as the last one had. */
export const settingsOf = (conversation) => conversation?.settings ?? typedWords().settings ?? null;

// ---- addresses

export function parseRoute(path) {
  const found = /^\/(c|r)\/([\w-]+)$/.exec(path);
  if (!found) return { kind: "new", id: null };
  return { kind: found[1] === "c" ? "chat" : "turn", id: found[2] };
}

/** Shows what an address names; `mark` are words to show where they stand. */
export function navigate(path, { replace = false, mark = null } = {}) {
  if (path !== location.pathname) history[replace ? "replaceState" : "pushState"](null, "", path);
  set({ route: { ...parseRoute(path), mark }, sidebar: false });
}

addEventListener("popstate", () => set({ route: parseRoute(location.pathname), ...(isKeyAsked() ? {} : { dialog: null }) }));

/** Follow a link of this page without loading it again; other clicks are the browser's. */
export function follow(event) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  navigate(event.currentTarget.getAttribute("href"));
}

// ---- requests

export class ApiError extends Error {
  constructor(message, status, code = null, responseId = null) {
    super(message);
    Object.assign(this, { status, code, responseId });
  }
}

export const key = {
  get: () => load("key", "sessionStorage"),
  set: (value) => save("key", value, { storage: "sessionStorage" }),
};

let keyRequest = null;

/** Asks for a key, once however many requests need one. */
function requestKey(message) {
  keyRequest ??= new Promise((resolve) => {
    openDialog("key", { message, resolve });
  }).finally(() => {
    keyRequest = null;
  });
  return keyRequest;
}

/** A browser's words for a server that is away are its own; somebody may read these. */
const explain = (error) => (error.name === "AbortError" ? error : new Error("The server cannot be reached.", { cause: error }));

/** `fetch` with the key; raises ApiError for every answer that is one. */
export async function request(path, { method = "GET", body, headers = {}, signal, keepalive } = {}) {
  for (let tries = 0; ; tries++) {
    const secret = key.get();
    const answer = await fetch(path, {
      method,
      signal,
      keepalive,
      cache: "no-store",
      headers: {
        ...(secret ? { Authorization: `Bearer ${secret}` } : {}),
        ...(body === undefined || body instanceof Blob ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined || body instanceof Blob ? body : JSON.stringify(body),
    }).catch((error) => { throw explain(error); });
    if (answer.ok) return answer;
    const error = (await answer.json().catch(() => null))?.error ?? {};
    const message = error.message ?? `The server answered with status ${answer.status}.`;
    // A key that another request has just been given is tried before anybody is asked for one.
    if (answer.status === 401 && tries < 8) {
      if (secret === key.get()) await requestKey(secret ? message : "");
      continue;
    }
    throw new ApiError(message, answer.status, error.code, error.response_id);
  }
}

export const api = async (path, options) => (await request(path, options)).json();

export const query = (path, fields) => {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
};

const WINDOW = 20; // turns that are read at once

/** Where a page of the turns of a branch is read. */
export const turnsPath = (head, fields) => query(`/v1/responses/${head}/turns`, { limit: WINDOW, images: "reference", ...fields });

/** Where the versions of a turn are read: it, and those beside it. */
const siblingsOf = (id) => [`/v1/responses/${id}/siblings`, { limit: 3, around: true }];
export const siblingsPath = (id) => query(...siblingsOf(id));

/** What the address of the page names, read while its files are still on their way; used once. `events` are
 * what the feed has told since. */
let early = null;

/** Reads it; done once the first answer is there, which says where the feed begins. */
export function readEarly({ kind, id }) {
  if (kind === "new") return null;
  const isTurn = kind === "turn";
  const first = isTurn ? readFirst(...siblingsOf(id)) : readFirst(`/v1/chats/${id}`, { window: WINDOW });
  const chat = isTurn ? first.then(() => api(`/v1/chats/${id}`)) : first.then(({ window: _, ...chat }) => chat);
  const turns = first.then((one) => (isTurn ? api(turnsPath(leafOf(one, id), { around: id })) : one.window));
  early = { id, chat, siblings: isTurn ? first : null, turns, events: [] };
  // Whoever shows it learns of a failure.
  for (const one of [chat, turns]) one.catch(() => {});
  return first.catch(() => {});
}

/** The newest turn that followed one of several versions. */
export const leafOf = (siblings, id) => siblings.data.find((one) => one.response_id === id)?.leaf ?? id;

export function takeEarly(id) {
  const found = early?.id === id ? early : null;
  early = null;
  return found;
}

/** The server says something every 15 seconds: a connection that is silent for longer is dead. */
const SILENCE = 45_000;

/** The events of an answer that is an event stream: {id, type, data}. */
export async function* readEvents(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const timer = setTimeout(() => reader.cancel().catch(() => {}), SILENCE);
      const { value, done } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      rest += value;
      let begin = 0;
      for (let end; (end = rest.indexOf("\n\n", begin)) >= 0; begin = end + 2) {
        const event = parseEvent(rest.slice(begin, end));
        if (event) yield event;
      }
      rest = rest.slice(begin);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  const event = { id: null, type: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("data:")) event.data += line.slice(5).trimStart();
    else if (line.startsWith("event:")) event.type = line.slice(6).trim();
    else if (line.startsWith("id:")) event.id = line.slice(3).trim();
  }
  if (!event.data || event.data === "[DONE]") return null;
  try {
    return { ...event, data: JSON.parse(event.data) };
  } catch {
    return null;
  }
}

/** The key of a decision on a call: two clicks, two tabs, two people, page and inbox make one. */
export const decisionKey = (requestId) => `approval-${requestId}`;

/** Whether a decision was refused since somebody else has decided: otherwise by the page, or by any program. */
export const isDecided = ({ code }) => ["idempotency_key_in_use", "approval_already_decided"].includes(code);

export const newKey = () => crypto.randomUUID?.()
  ?? [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");

/** Waits, less if the network comes back or the page is looked at again. */
export const pause = (milliseconds) => new Promise((resolve) => {
  const done = () => {
    clearTimeout(timer);
    removeEventListener("online", done);
    document.removeEventListener("visibilitychange", done);
    resolve();
  };
  const timer = setTimeout(done, milliseconds);
  addEventListener("online", done);
  document.addEventListener("visibilitychange", done);
});

// ---- the feed: one connection for all tabs with the same key

const feedListeners = new Set();
let cursor = null;
let channel = null;

/** Reads what is shown first. All that is read later is newer, so that the feed from here on has
 * every change of it. */
export async function readFirst(path, fields = {}) {
  const answer = await api(query(path, { ...fields, ...(cursor ? {} : { feed_cursor: true }) }));
  cursor ??= answer.feed_cursor;
  return answer;
}

export function onFeed(listener) {
  feedListeners.add(listener);
  return () => feedListeners.delete(listener);
}

function deliver(message) {
  if (message.cursor) cursor = message.cursor;
  if ("online" in message && message.online !== state.online) set({ online: message.online });
  if (!message.event) return;
  early?.events.push(message.event);
  for (const listener of feedListeners) listener(message.event);
}

/** Listens to the tab that reads the feed: before anything is read. Whether it did not yet. */
export async function openChannel() {
  const name = `${PREFIX}feed.${await digest(key.get() ?? "")}`;
  if (channel?.name === name) return false;
  channel?.close();
  channel = connectTabs(name);
  channel.onmessage = ({ data }) => deliver(data);
  return true;
}

/** A channel to the other tabs; to none where the browser forbids it. */
function connectTabs(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return { name, postMessage() {}, close() {} };
  }
}

/** Starts the feed. A browser opens six connections to a server at most, for all of its tabs:
 * so one tab reads the feed and hands it to the others. */
export async function startFeed() {
  // A key has just been given: what the others were told until now is read again.
  if (await openChannel()) deliver({ event: { type: "feed.reset" } });
  const read = () => readFeed((message) => {
    deliver(message);
    channel.postMessage(message);
  });
  // Held until this tab closes; the next tab then goes on from the last event that it saw.
  withLock(channel.name, read);
}

async function readFeed(deliver) {
  for (let failures = 0; ; failures++) {
    try {
      const answer = await request("/v1/feed", { headers: cursor ? { "Last-Event-ID": cursor } : {} });
      failures = 0;
      for await (const event of readEvents(answer)) {
        if (event.type === "feed.ready") deliver({ online: true, cursor: event.id ?? event.data.cursor });
        else deliver({ cursor: event.id, event: { ...event.data, type: event.type } });
      }
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return;
    }
    deliver({ online: false });
    await pause(Math.min(500 * 2 ** failures, 10_000));
  }
}

async function digest(text) {
  if (!text || !crypto.subtle) return text ? "key" : "";
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(bytes).slice(0, 8)].map((one) => one.toString(16).padStart(2, "0")).join("");
}
