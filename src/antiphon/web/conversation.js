/** Conversation: the main part of the page: its head, the list of turns, and the composer. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { api, follow, icon, iconButton, load, loadAll, navigate, newKey, notify, openDialog, pause, save, set, settingsOf, state, useStore } from "./core.js";

/** What is not needed to show an empty page: loaded when a chat is opened or a word is typed. */
let parts = null;
export const loadParts = () => (parts ??= importParts());

/** What those import: named here, so that all files come at once and not one after another. A browser has six
 * connections: the large files go first. */
const IMPORTED = ["./vendor/marked.js", "./markdown.js", "./turns.js", "./live_turn.js", "./sending.js", "./text_marks.js", "./code.js", "./work_queue.js"];

/** The network may be away: what was typed waits for it. */
async function importParts() {
  for (let failures = 0; ; failures++) {
    try {
      const imported = IMPORTED.map((file) => import(file));
      const [list, actions, turnWindow] = await Promise.all([
        import("./turn_list.js"), import("./turn_actions.js"), import("./turn_window.js"), ...imported]);
      if (failures) set({ isAway: false });
      return { ...list, ...actions, ...turnWindow };
    } catch {
      set({ isAway: true });
      await pause(Math.min(250 * 2 ** failures, 5_000));
    }
  }
}

/** Shows a new chat. */
export function startChat(event) {
  if (event?.metaKey || event?.ctrlKey) return;
  event?.preventDefault();
  set({ chat: null, conversation: null });
  navigate("/");
  document.querySelector("#composer")?.focus();
}

export function Conversation() {
  const { conversation, chat, route, isAway } = useStore("conversation", "chat", "route", "temporary", "isAway");
  const [loaded, setLoaded] = useState(null);
  useEffect(() => {
    if (route.kind !== "new" || conversation?.turns.length) loadParts().then(setLoaded);
  }, [route, conversation]);
  const isEmpty = !conversation?.turns.length;
  const away = isAway && isEmpty && html`<p class="away waiting" role="status"><span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>Waiting for the server…</p>`;
  const isBare = conversation?.error || (isEmpty && route.kind === "new");
  return html`<main class=${isBare ? "conversation empty" : "conversation"} id="main">
    <${Head} chat=${chat} conversation=${conversation} />
    ${conversation?.error ? html`<${Missing} error=${conversation.error} />`
      : isEmpty && route.kind === "new" ? html`<${Welcome} />`
      : loaded && conversation ? html`<div class="log">${away}<${loaded.TurnList} conversation=${conversation} /></div>`
      : html`<div class="log" aria-busy="true">${away}</div>`}
    ${!conversation?.error && html`<${Composer} conversation=${conversation} chat=${chat} />`}
  </main>`;
}

function Head({ chat, conversation }) {
  const title = conversation?.temporary || (!chat && state.temporary) ? "Temporary chat" : chat?.title || (chat ? "Untitled" : "New chat");
  const days = chat?.expires_at ? Math.ceil((chat.expires_at - Date.now() / 1000) / 86400) : null;
  return html`<header class="head">
    ${iconButton("menu", "Open the list", () => set({ sidebar: true }), { class: "icon-button menu-button" })}
    <h1 class="title" dir="auto" title=${title}>${title}</h1>
    ${days !== null && days <= 14 && html`<button type="button" class="tag wide-only" title="Its turns are erased then, unless somebody goes on or keeps it" aria-haspopup="dialog" onClick=${() => openDialog("chat", { chat })}>expires in ${days} ${days === 1 ? "day" : "days"}</button>`}
    ${chat?.branches > 1 && html`<button type="button" class="tag" aria-label=${`${chat.branches} branches`} onClick=${() => openDialog("branches", { chat })}>${chat.branches}<span class="wide-only"> branches</span><span class="narrow-only" aria-hidden="true">${icon("branch")}</span></button>`}
    <span class="head-actions">
      ${chat && iconButton("search", "Search in this chat", () => openDialog("palette", { chat }))}
      ${chat && iconButton("share", "Share and export", () => openDialog("share", { chat }), { class: "icon-button wide-only" })}
      ${chat && iconButton("more", "More about this chat", () => openDialog("chat", { chat }), { "aria-haspopup": "dialog" })}
      ${conversation?.turns.length > 0 && html`<a href="/" class="icon-button menu-button" aria-label="New chat" title="New chat" onClick=${startChat}>${icon("new")}</a>`}
      ${!chat && !conversation?.error && !conversation?.turns.length && html`<button type="button" class=${state.temporary ? "toggle on" : "toggle"} aria-label="Temporary" aria-pressed=${state.temporary} title="Nothing of it is stored" onClick=${() => { set({ temporary: !state.temporary }); document.querySelector("#composer").focus(); }}>${icon("temporary")}<span>Temporary</span></button>`}
    </span>
  </header>`;
}

const Welcome = () => html`<div class="welcome">
  <h1>${state.temporary ? "Nothing of this is stored." : "What is on your mind?"}</h1>
  <p>${state.temporary ? "This chat is gone when you leave it." : "Every word is on disk before you see it."}</p>
</div>`;

const Missing = ({ error }) => html`<div class="welcome"><h2>${error.status === 404 ? "There is nothing here." : "This could not be opened."}</h2>
  <p>${error.status === 404 ? "It may have been erased, or it is somebody else's." : error.message}</p>
  <a class="button" href="/" onClick=${follow}>New chat</a></div>`;

// ---- composer

const chatName = (conversation) => conversation?.chatId ?? state.route?.id ?? "new";
const draftName = (conversation) => `draft.${chatName(conversation)}`;
const queueName = (conversation) => `queue.${chatName(conversation)}.`;
/** The pictures of messages that are being written in other chats: the name of each draft -> data URLs. */
const unsentPictures = new Map();
const LARGEST_PICTURE = 20 * 2 ** 20;

// Messages to be sent are kept each by itself: tabs that show the same chat have their own side by side.
const inOrder = (one, other) => one.at - other.at;
const loadQueue = (place) => loadAll(place).sort(inOrder);
const isQueuedAt = (place, id) => load(place + id) !== null;
const removeFrom = (place, id) => save(place + id, null);
// What is in the outbox is sent from there, also by the next page.
const keepAt = (place, message) => save(place + message.id, message.isInOutbox ? null : message, { rest: withoutPictures(message) });

const touch = matchMedia("(pointer: coarse)");

/** The model of the next turn; null: the server's default. Imported chats may not name theirs. */
export function nextModel(conversation) {
  const own = settingsOf(conversation);
  if (own && "model" in own) return own.model;
  const isNamed = ({ response }) => response.model && response.model !== "unknown";
  return conversation?.turns.findLast(isNamed)?.response.model ?? state.model ?? null;
}

/** Calls the newest of some functions with what an event of the document carries. */
function useDocumentEvent(name, act) {
  const newest = useRef();
  newest.current = act;
  useEffect(() => {
    const listener = ({ detail }) => newest.current(detail);
    document.addEventListener(name, listener);
    return () => document.removeEventListener(name, listener);
  }, []);
}

function Composer({ conversation, chat }) {
  useStore("model", "temporary", "conversation", "sending", "hasLeftovers");
  const area = useRef();
  const sent = useRef(null); // the pictures that were sent last
  const picker = useRef();
  const name = draftName(conversation);
  const [text, setText] = useState(load(name) ?? "");
  const [pictures, setPictures] = useState([]);
  const [queue, showQueue] = useState(() => loadQueue(queueName(conversation)));
  const isKept = conversation?.turns.length ? !conversation.temporary : state.route.kind !== "new" || !state.temporary;
  const queueNow = useRef(queue);
  const setQueue = (changed) => {
    const before = queueNow.current;
    const after = changed(before);
    const place = queueName(state.conversation);
    queueNow.current = after;
    if (isKept) {
      after.filter((one) => !before.includes(one)).forEach((one) => keepAt(place, one));
      before.filter(({ id }) => !after.some((one) => one.id === id)).forEach(({ id }) => removeFrom(place, id));
    }
    showQueue(after);
  };
  const running = isRunning(conversation);
  const last = conversation?.turns.at(-1);
  const later = (conversation?.queue ?? []).filter((turn) => !queue.some((one) => one.replaces === turn.response.id));

  // The draft of the chat that is open; what is typed stays while its name becomes known.
  const shown = useRef(name);
  useLayoutEffect(() => {
    const before = shown.current;
    if (before === name) return;
    shown.current = name;
    const isSame = before === "draft.new" ? conversation?.turns.length === 1 : state.route.kind === "turn" && before === `draft.${state.route.id}`;
    const place = queueName(conversation);
    const queued = isSame ? queueNow.current : [];
    const kept = loadQueue(place);
    if (isSame && text) save(name, text);
    else setText(load(name) ?? "");
    if (isSame) save(before, null);
    else {
      unsentPictures.set(before, pictures);
      setPictures(unsentPictures.get(name) ?? []);
    }
    for (const one of queued) {
      removeFrom(before.replace("draft.", "queue.") + ".", one.id);
      if (isKept) keepAt(place, one);
    }
    queueNow.current = [...kept, ...queued];
    showQueue(queueNow.current);
  }, [name]);
  useLayoutEffect(() => {
    if (CSS.supports("field-sizing", "content")) return;
    area.current.style.height = "auto";
    area.current.style.height = `${Math.min(area.current.scrollHeight, innerHeight * 0.4)}px`;
  }, [text]);
  useEffect(() => {
    if (!touch.matches) area.current.focus();
  }, [conversation?.id]);

  const write = (value) => {
    loadParts();
    setText(value);
    if (isKept) save(name, value);
  };
  // What was typed before the chat was made a temporary one is kept no longer.
  useEffect(() => { if (!isKept) save(name, null); }, [isKept]);
  // A message stays in the queue until the outbox has it: its id is the key that it is sent with. `place`:
  // where it was kept, as another chat may have been opened meanwhile, or a new one have got its name.
  const remove = (id, place = null) => {
    setQueue((before) => before.filter((one) => one.id !== id));
    if (place) removeFrom(place, id);
  };
  const refused = useRef(null); // what the server did not take while an answer ran
  const typed = useRef(new Set()); // ids of what was typed on this page
  const isLeftBehind = async ({ id }) => isKept && !typed.current.has(id) && (await loadParts()).isInOutbox(id);
  /** What sends a message, and its pictures; null: another chat was opened meanwhile, and it waits for its own. */
  const prepare = async (next, place) => {
    const found = await loadParts();
    const isLeft = await isLeftBehind(next);
    const images = next.hasPictures && !isLeft ? await found.picturesOf(next.replaces) : next.pictures;
    if (queueName(state.conversation) === place) return { ...found, isLeft, images };
    lookAgain();
    return null;
  };
  const lookAgain = () => {
    posted.current = null;
    setQueue((before) => [...before]);
  };
  const post = async (next) => {
    const { id, words, replaces } = next;
    const place = queueName(state.conversation);
    try {
      const found = await prepare(next, place);
      if (!found) return;
      if (found.isLeft) {
        remove(id, place);
        return;
      }
      // A turn of another tab or program has begun meanwhile: this message goes behind it.
      if (isKept && isRunning(state.conversation)) {
        lookAgain();
        return;
      }
      if (!state.conversation || state.route.kind === "new" && !state.conversation.turns.length)
        found.newConversation({ temporary: state.temporary, settings: settingsOf(state.conversation) });
      await found.send(words, found.images, { id, replaces, onKept: () => remove(id, place) });
    } catch (error) {
      notify(error.message);
    }
  };
  // While a turn runs the server gets what is next, and sends it though no page is open.
  const handOver = async (next) => {
    const place = queueName(state.conversation);
    const mark = (marks) => setQueue((before) => before.map((one) => (one.id === next.id ? { ...one, ...marks } : one)));
    const onKept = () => { mark({ isInOutbox: true }); removeFrom(place, next.id); };
    try {
      const found = await prepare(next, place);
      if (!found) return;
      if (!found.isLeft) await found.sendLater({ ...next, pictures: found.images, onKept, onStored: (storedAs) => mark({ storedAs }) });
      remove(next.id, place);
    } catch (error) {
      // It is tried again as any other message is, when this answer has ended.
      posted.current = null;
      refused.current = next.id;
      if (queueNow.current.some((one) => one.id === next.id)) mark({ isInOutbox: false });
      // Its chat was left meanwhile, and may be open again.
      else if (queueName(state.conversation) === place) setQueue((before) => [...before, next].sort(inOrder));
      else keepAt(place, next);
      loadParts().then(({ forget }) => forget(next.id));
      notify(error.message);
    }
  };
  // What the server has is taken back to be sent behind another turn: by one key, whichever tab does it.
  const takeBack = (turns) => {
    if (!turns.length) return;
    const items = turns.map((turn) => ({ id: `again-${turn.response.id}`, words: wordsOf(turn), pictures: [], replaces: turn.response.id, hasPictures: hasPicture(turn) }));
    setQueue((before) => {
      const first = before[0]?.at ?? Date.now();
      return [...items.map((one, index) => ({ ...one, at: first - items.length + index })), ...before];
    });
    set({ conversation: { ...state.conversation, queue: state.conversation.queue.filter((one) => !turns.includes(one)) } });
  };
  useDocumentEvent("antiphon:take-back", () => takeBack(state.conversation?.queue ?? []));
  // A message that could not be sent is given back.
  useDocumentEvent("antiphon:write", ({ words, pictures: images }) => {
    write([area.current.value, words].filter(Boolean).join("\n\n"));
    setPictures((before) => [...before, ...images]);
    area.current.focus();
  });
  // What was asked elsewhere: unless other words have been typed meanwhile, or another chat is open.
  const clearSent = (place, words) => {
    if (load(place) === words) save(place, null);
    if (shown.current !== place || area.current.value !== words) return;
    setText("");
    setPictures([]);
  };
  const released = useRef(false);
  const submit = (event) => {
    event?.preventDefault();
    // Emptied at once, not when it is drawn next: a second click has nothing to send.
    const words = area.current.value.trim();
    if (isHeldBack) takeBack(later);
    if (!words && !pictures.length && isHeldBack) {
      released.current = true;
      setQueue((before) => [...before]);
      return;
    }
    if (!words && (!pictures.length || sent.current === pictures)) return;
    area.current.value = "";
    sent.current = pictures;
    released.current = true;
    write("");
    setPictures([]);
    const id = newKey();
    typed.current.add(id);
    setQueue((before) => [...before, { id, words, pictures, at: Math.max(Date.now(), (before.at(-1)?.at ?? 0) + 1) }]);
  };
  // After a failure the queue waits until something is sent.
  const posted = useRef(null);
  const [isLate, setLate] = useState(false);
  const isReady = conversation ? !conversation.loading && !conversation.error : state.route.kind === "new";
  const hasFailed = Boolean(last?.error || ["failed", "cancelled"].includes(last?.response.status));
  const isWaiting = later.length > 0 || queue.length > 0 && !released.current;
  const isHeldBack = isWaiting && !running && isReady && hasFailed;
  // A chat of a conversation goes on by the conversation's name, which nothing can be queued behind.
  const isServers = Boolean(isKept && last?.response.id && !chat?.conversation && (running || later.length) && !hasFailed);
  // What is being sent to this chat and is not in view: from before it was left, or from an earlier page.
  const isBehind = isKept && Boolean(conversation?.chatId) && (state.hasLeftovers || state.sending.includes(conversation.chatId));
  useEffect(() => {
    // Another chat has been opened, and its queue is drawn next: this one is not sent there.
    if (queue !== queueNow.current || draftName(state.conversation) !== name) return;
    const [next] = queue;
    if (running) released.current = false;
    if (!next || !isReady || isBehind || posted.current === next.id) return;
    if (isServers ? refused.current === next.id : running || hasFailed && !released.current) return;
    if (next.lacksPictures) {
      remove(next.id);
      document.dispatchEvent(new CustomEvent("antiphon:write", { detail: { words: next.words, pictures: [] } }));
      notify("This message has not been sent. Its pictures were too large to keep: add them again.", [], 12);
      return;
    }
    posted.current = next.id;
    // Another tab may have sent it.
    if (isKept && !isQueuedAt(queueName(conversation), next.id)) remove(next.id);
    else if (isServers) handOver(next);
    else {
      // Seen in the queue only if its turn is not in view soon.
      setLate(false);
      setTimeout(() => setLate(queueNow.current.some((one) => one.id === next.id)), 400);
      post(next);
    }
  }, [running, queue, isReady, isServers, hasFailed, isBehind, name]);

  const stopTurn = () => loadParts().then(({ stop }) => stop());
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch.matches) submit(event);
    else if (event.key === "Escape" && running) { event.preventDefault(); stopTurn(); }
    else if (event.key === "ArrowUp" && !text && waiting.length) editNext(waiting.at(-1));
  };
  const isElsewhere = () => draftName(state.conversation) !== name;
  const addFiles = async (files) => {
    const added = [];
    for (const file of files) {
      if (!/^image\/(png|jpeg|gif|webp)$/.test(file.type)) notify(`${file.name || "This file"} is no picture that models take (PNG, JPEG, GIF or WebP).`);
      else if (file.size > LARGEST_PICTURE) notify(`${file.name} is larger than 20 MB.`);
      else added.push(await readFile(file));
    }
    if (isElsewhere()) unsentPictures.set(name, [...(unsentPictures.get(name) ?? []), ...added]);
    else setPictures((before) => [...before, ...added]);
  };
  useDocumentEvent("antiphon:pictures", addFiles);
  const onPaste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) { event.preventDefault(); addFiles(files); }
  };

  // Sent without words of its own: those that wait go.
  const canSend = text.trim() || pictures.length > 0 || isHeldBack;
  const isGoing = !running && isReady && !isBehind && !isLate && (!hasFailed || released.current);
  const isShown = ({ storedAs }) => storedAs && [...later, ...(conversation?.turns ?? [])].some((turn) => turn.response.id === storedAs);
  const own = (isServers ? queue : isGoing ? queue.slice(1) : queue.filter((one) => one.id !== posted.current || isLate)).filter((one) => !isShown(one));
  const waiting = [...later.map((turn) => ({ id: turn.response.id, words: wordsOf(turn), turn })), ...own];
  // Raises what keeps it in the queue.
  const takeOff = async ({ id, turn }) => {
    if (!turn) remove(id);
    else if (!(await (await loadParts()).removeLater(turn))) throw new Error("It was sent already.");
  };
  const removeNext = (one) => takeOff(one).catch((error) => notify(error.message));
  const editNext = async (one) => {
    const { turn } = one;
    try {
      const images = turn ? (hasPicture(turn) ? await (await loadParts()).picturesOf(one.id) : []) : one.pictures ?? [];
      if (isElsewhere()) return;
      // Written down before it is erased.
      write(one.words);
      setPictures(images);
      area.current.focus();
      await takeOff(one).catch((error) => {
        write("");
        setPictures([]);
        throw error;
      });
    } catch (error) {
      notify(error.message);
    }
  };
  // Those from a place on are sent anew, in another order.
  const moveUp = (index) => {
    const turns = later.slice(index - 1);
    [turns[0], turns[1]] = [turns[1], turns[0]];
    takeBack(turns);
  };
  return html`<form class="composer" onSubmit=${submit}>
    ${(isHeldBack || later.length > 0 && !running && hasOpenCalls(last)) && html`<p class="hint queue-note">${whyHeld(last)}</p>`}
    ${waiting.length > 0 && html`<ul class="queue" aria-label="Messages to be sent next">${waiting.map((one, index) => html`<li key=${one.id}>
      <button type="button" class="chip" title="Edit" onClick=${() => editNext(one)}>${one.words || "Picture"}</button>
      ${running && index > 0 && index < later.length && iconButton("left", "Send before the one in front", () => moveUp(index))}
      ${iconButton("close", "Remove from the queue", () => removeNext(one))}</li>`)}</ul>`}
    <div class="box">
      ${pictures.length > 0 && html`<ul class="pictures" aria-label="Pictures to be sent">${pictures.map((one, index) => html`<li key=${index}>
        <img src=${one} alt=${`Picture ${index + 1}`} />${iconButton("close", `Remove picture ${index + 1}`, () => setPictures(pictures.filter((other) => other !== one)))}</li>`)}</ul>`}
      <label class="hidden" for="composer">Message</label>
      <textarea id="composer" ref=${area} rows="1" dir="auto" placeholder=${running ? "Type the next message" : "Message"} value=${text}
        enterkeyhint=${touch.matches ? "enter" : "send"} onInput=${(event) => write(event.target.value)} onKeyDown=${onKeyDown} onPaste=${onPaste}></textarea>
      <div class="tools">
        <input type="file" class="hidden" ref=${picker} accept="image/png,image/jpeg,image/gif,image/webp" multiple tabindex="-1" aria-label="Pictures" onChange=${(event) => { addFiles([...event.target.files]); event.target.value = ""; }} />
        ${iconButton("attach", "Add pictures", () => picker.current.click())}
        <button type="button" class="quiet" title="Model and system prompt" aria-haspopup="dialog" onClick=${() => openDialog("model")}>
          <span>${nextModel(conversation) ?? "Default model"}</span>${(settingsOf(conversation)?.instructions ?? last?.response.instructions) && html`<span class="dot" title="With a system prompt"></span>`}${icon("choose")}</button>
        <span class="space"></span>
        ${!running && isKept && text.trim() && html`<button type="button" class="quiet" title="Ask several models, side by side" aria-label="Ask several models, side by side" aria-haspopup="dialog" onClick=${() => openDialog("compare", { text, images: pictures, done: () => clearSent(name, text) })}>${icon("compare")}</button>`}
        ${running && html`<button type="button" class="round" aria-label="Stop" title="Stop (Esc)" disabled=${!last.response.id} onClick=${stopTurn}><span class="stop">${icon("stop")}</span></button>`}
        ${(!running || text.trim()) && html`<button class="round primary" aria-label=${running ? "Send next" : "Send"} title=${running ? "Send when this answer is done" : isHeldBack && !text.trim() ? "Send what waits (Enter)" : "Send (Enter)"} disabled=${!canSend}>${icon("send")}</button>`}
      </div>
    </div>
  </form>`;
}

/** A queued message for which the browser has no room: another page gives its words back. */
const withoutPictures = ({ pictures, ...one }) => ({ ...one, pictures: [], lacksPictures: pictures.length > 0 });

const contentOf = (turn) => turn.input.flatMap((item) => (typeof item.content === "string" ? [{ text: item.content }] : item.content ?? []));
const wordsOf = (turn) => contentOf(turn).map((part) => part.text ?? "").join("");
const hasPicture = (turn) => contentOf(turn).some((part) => part.type === "input_image");

/** Whether a turn ended with calls whose results somebody has to bring. */
function hasOpenCalls(last) {
  const output = last?.response.status === "completed" ? last.response.output : [];
  const results = new Set(output.filter((item) => item.type.endsWith("_output")).map((item) => item.call_id));
  return output.some((item) => item.type === "mcp_approval_request" || /^(function|custom_tool)_call$/.test(item.type) && !results.has(item.call_id));
}

/** Why what is next is not sent. */
const whyHeld = (last) => last?.response.status === "cancelled" ? "The answer was stopped, so these wait until you send them."
  : last?.error || last?.response.status === "failed" ? "The answer failed, so these wait until you send them."
  : "These wait until the calls above have their results.";

function isRunning(conversation) {
  const turn = conversation?.turns.at(-1);
  return Boolean(turn && !turn.error && (!turn.response.id || turn.live || ["queued", "in_progress"].includes(turn.response.status)));
}

const readFile = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

/** The models that may be asked; read when they are first shown. */
export async function loadModels() {
  if (!state.models) set({ models: (await api("/v1/models")).data.map(({ id }) => id) });
  return state.models;
}
