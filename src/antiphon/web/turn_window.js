/** Turn window: the part of a branch that is in view, read by pages, and kept up to date. */
import { api, ApiError, leafOf, notify, onFeed, pause, set, siblingsPath, state, takeEarly, turnsPath } from "./core.js";
import { followTurn, isRunning, LiveTurn } from "./live_turn.js";
import { readUnlessRemoved } from "./sending.js";

const MOST_TURNS = 90; // in view
const MOST_ELEMENTS = 1_400; // what was dropped last stays in memory too, for a while

/** Changes the conversation, unless another one has been opened meanwhile. */
export function change(conversation, changes) {
  if (state.conversation?.id !== conversation.id) return false;
  set({ conversation: { ...state.conversation, ...changes } });
  return true;
}

/** Reads until the server answers, as long as the same conversation is open. Raises ApiError. */
export async function readPatiently(conversation, read) {
  for (let failures = 0; ; failures++) {
    try {
      const answer = await read();
      if (failures) set({ isAway: false });
      return answer;
    } catch (error) {
      const isAnswer = error instanceof ApiError && error.status < 500 && error.status !== 429;
      if (isAnswer || state.conversation?.id !== conversation.id) throw error;
    }
    if (!failures) set({ isAway: true });
    await pause(Math.min(250 * 2 ** failures, 5_000));
  }
}

const blank = () => ({
  id: {}, // another object for each that is opened
  chatId: null,
  head: null,
  turns: [],
  queue: [], // turns that the server has, and that wait for the last of the others
  before: false,
  after: false,
  total: 0,
  loading: false,
  error: null,
  editing: null,
  anchor: null, // {id, at: "end" | "center" | "top", top, mark, focus}: what the list scrolls to
  temporary: false,
});

/** A conversation without turns, for a new chat. */
export function newConversation(more = {}) {
  stopFollowing();
  forgetChanges();
  const conversation = { ...blank(), ...more };
  set({ conversation, chat: null });
  return conversation;
}

/** Opens what an address names. `mark` are words to show where they stand. */
export async function openRoute(route, { mark = null } = {}) {
  stopFollowing();
  forgetChanges();
  const conversation = { ...blank(), loading: true };
  set({ conversation, chat: state.chats.find((one) => one.id === route.id) ?? null });
  await readPatiently(conversation, () => readRoute(conversation, route, mark))
    .catch((error) => change(conversation, { loading: false, error }));
}

async function readRoute(conversation, route, mark) {
  const isChat = route.kind === "chat";
  const early = takeEarly(route.id);
  if (early) delayed.unshift(...early.events.filter((event) => event.chat_id));
  const [chat, siblings] = await Promise.all([
    early?.chat ?? api(`/v1/chats/${route.id}`), isChat ? null : early?.siblings ?? api(siblingsPath(route.id))]);
  if (state.conversation?.id !== conversation.id) return;
  set({ chat });
  const reading = early?.turns;
  await (isChat ? showBranch(conversation, chat.head, { anchor: { at: "end" }, reading })
    : showBranch(conversation, leafOf(siblings, route.id), { around: route.id, anchor: { id: route.id, at: "center", mark }, reading }));
}

/** What somebody has asked to see last: what an earlier wish brings then comes too late. */
let lastWish = null;
export const isLastWish = (wish) => wish === lastWish;
export const newWish = () => (lastWish = {});

/** Shows the branch that ends with `head`, at its end or around a turn; `keepsSending`: and what is being sent to it. */
export async function showBranch(conversation, head, { around, position, anchor, reading = null, wish = null, keepsSending = false }) {
  // Another chat that is being opened meanwhile is what is wished.
  if (state.conversation?.id !== conversation.id) return;
  wish ??= newWish();
  if (!isLastWish(wish)) return;
  change(conversation, { loading: true, error: null });
  // What is queued at the end is no part of what is in view in the middle.
  const [first, leaf] = await Promise.all([
    reading ?? api(turnsPath(head, { around, position })), around || position !== undefined ? api(turnsPath(head, { limit: 1 })) : null,
  ]).catch((error) => {
    // What is in view stays, and goes on.
    if (isLastWish(wish) && state.conversation?.turns.length) change(conversation, { loading: false });
    throw error;
  });
  const isAtEnd = !first.has_more_after;
  const page = isAtEnd && first.data.every(isQueued) ? await readEnd(head) : first;
  const end = isAtEnd ? page : leaf && isQueued(leaf.data[0]) ? await readEnd(head) : leaf;
  const { turns } = split(page);
  if (!isLastWish(wish)) return;
  const { turns: begun, queue } = split(end);
  const last = begun.at(-1)?.response.id ?? head;
  const changed = change(conversation, {
    head: last, turns: keepsSending ? withSending(joinLive(turns)) : joinLive(turns), queue, before: page.has_more_before,
    after: page.has_more_after && turns.at(-1)?.response.id !== last,
    total: page.total - queue.length, loading: false, chatId: state.chat?.id ?? null,
    anchor: anchor && { ...anchor, id: anchor.id ?? page.data.find((one) => one.position === position)?.response.id },
  });
  if (!changed) return;
  followLast();
  for (const event of delayed.splice(0)) showChange(event);
}

// ---- turns that wait for the one before them

const isQueued = (turn) => turn.response.status === "queued";

/** A part of a branch: what has begun, and what is queued behind it. */
const split = ({ data }) => ({ turns: data.filter((turn) => !isQueued(turn)), queue: data.filter(isQueued) });

/** The end of a branch, with a turn that has begun. */
async function readEnd(head) {
  for (let limit = 20; ; limit *= 4) {
    const page = await api(turnsPath(head, { limit: Math.min(limit, 100) }));
    if (!page.data.every(isQueued) || !page.has_more_before || limit > 100) return page;
  }
}

/** Takes up what another tab or program has queued behind what is shown. */
async function readQueue(conversation, id) {
  const page = await readPatiently(conversation, () => readUnlessRemoved(id, () => readEnd(id))).catch(() => null);
  const current = state.conversation;
  if (!page || current?.id !== conversation.id || current.queue.some(byId(id)) || erased.has(id)) return;
  const { turns, queue } = split(page);
  if (turns.at(-1)?.response.id === current.head) change(conversation, { queue: withoutErased(queue) });
  // By now it may have begun.
  if (!queue.some(byId(id))) await addFromElsewhere(conversation, id);
}

/** Shows the first of the queue in its place once it has begun. */
export async function showBegun(conversation) {
  while (state.conversation?.id === conversation.id && state.conversation.queue.length) {
    const { id } = state.conversation.queue[0].response;
    let turn = null;
    try {
      turn = await readPatiently(conversation, () => readTurn(id));
    } catch (error) {
      if (error.status !== 404) return;
    }
    const current = state.conversation;
    if (current?.id !== conversation.id || turn && isQueued(turn)) return;
    // Another call of this was faster.
    if (!current.queue.some(byId(id))) continue;
    if (turn) appendTurn(conversation, turn);
    else takeErasure(conversation, id);
    if (turn && isRunning(turn.response.status)) return;
  }
}

/** Shows a turn that has begun behind all others, once: whoever reads it sees that, and it may be queued here yet. */
function appendTurn(conversation, turn) {
  const { after, turns, head } = state.conversation;
  const { id, previous_response_id: parent } = turn.response;
  dropFromQueue(conversation, id);
  if (turns.some(byId(id)) || erased.has(id)) return;
  // Another tab's message was queued behind the same turn, and began first.
  if (parent !== head && turns.some(byId(parent))) {
    countVersion(conversation, turn);
    return;
  }
  // What was refused continued the turn before this one: its words are given back as it leaves the view.
  change(conversation, { head: id, total: turn.position + 1, ...(after ? {} : { turns: [...withoutRefused(turns), turn] }) });
  if (!after) followLast();
  const next = ahead.get(id);
  if (next) addFromElsewhere(conversation, next);
}

const dropFromQueue = (conversation, id) => change(conversation, { queue: state.conversation.queue.filter((one) => one.response.id !== id) });

/** What was erased of the chat that is open: id -> whether what followed it was too. An answer that was on its
 * way then has it yet. */
const erased = new Map();

/** Turns that were read before the one they continue was in view: its id -> theirs. */
const ahead = new Map();

/** Another chat is opened: what is known of changes is of the one before. */
function forgetChanges() {
  erased.clear();
  ahead.clear();
}

function withoutErased(turns) {
  const end = turns.findIndex(({ response }) => erased.get(response.id));
  return (end < 0 ? turns : turns.slice(0, end)).filter(({ response }) => !erased.has(response.id));
}

/** Takes a turn from view that the server has no longer; `cascade`: and what followed it. */
export function takeErasure(conversation, id, cascade = false) {
  const current = state.conversation;
  if (current?.id !== conversation.id) return;
  erased.set(id, cascade);
  const { turns, queue, head, before } = current;
  const isShown = turns.some(byId(id)) || head === id;
  // Whether it is above what is in view, or on another branch, the server says.
  const mayBeAbove = cascade && before && !queue.some(byId(id));
  change(conversation, { queue: isShown && cascade ? [] : withoutErased(queue) });
  if (isShown || mayBeAbove) removeTurn(conversation, id);
}

/** Turns that were read again, each in the place where it is shown: with its boxes and what is focused there. */
const joinLive = (turns) => turns.map((turn) => {
  const shown = state.conversation?.turns.find((one) => one.response.id === turn.response.id);
  if (!shown) return turn;
  return { ...turn, ...(shown.key && { key: shown.key }), ...(shown.live && isRunning(turn.response.status) && { live: shown.live }) };
});

/** Turns as they are stored, and in their place what the server has not confirmed. */
function withSending(turns) {
  const sending = state.conversation.turns.filter((turn) => !turn.response.id);
  return sending.length ? [...turns.filter((turn) => turn.position < sending[0].position), ...sending] : turns;
}

let reading = false;

/** Reads on in one direction, and drops what is far away in the other. */
export async function readMore(direction) {
  const { conversation } = state;
  if (reading || conversation.loading || !conversation[direction]) return;
  const edge = direction === "before" ? conversation.turns[0] : conversation.turns.at(-1);
  reading = true;
  try {
    const page = await api(turnsPath(conversation.head, { [direction]: edge.response.id }));
    if (state.conversation?.id !== conversation.id) return;
    const { turns } = state.conversation;
    if (direction === "before") change(conversation, trim({
      turns: [...withoutErased(page.data), ...turns], before: page.has_more_before, after: state.conversation.after }, "after"));
    else change(conversation, trim({
      turns: [...turns, ...joinLive(withoutErased(page.data))], before: state.conversation.before, after: page.has_more_after }, "before"));
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) await reload();
  } finally {
    reading = false;
  }
}

/** As many turns as may be in view, without those on the far side. */
function trim(window, farSide) {
  const articles = document.querySelectorAll("[data-turn]");
  const elements = document.querySelectorAll("[data-turn] *").length;
  const each = articles.length ? Math.max(8, elements / articles.length) : 30;
  const most = Math.max(8, Math.min(MOST_TURNS, Math.floor(MOST_ELEMENTS / each)));
  if (window.turns.length <= most) return window;
  return farSide === "after"
    ? { ...window, turns: window.turns.slice(0, most), after: true }
    : { ...window, turns: window.turns.slice(-most), before: true };
}

/** The last turn of a branch, queued or not. */
const endOf = ({ queue, head }) => queue.at(-1)?.response.id ?? head;

/** Shows another part of what is open, once the server answers. */
export function moveTo(conversation, place) {
  // Another one is being read: that is what is wished.
  if (state.conversation?.id !== conversation.id) return null;
  const wish = newWish();
  return readPatiently(conversation, () => showBranch(conversation, endOf(conversation), { ...place, wish }))
    .catch((error) => error instanceof ApiError && isLastWish(wish) && notify(error.message));
}

export const jumpTo = (position) => moveTo(state.conversation, { position, anchor: { at: "center" } });

export async function goToEnd() {
  const { conversation } = state;
  if (conversation.after) await moveTo(conversation, { anchor: { at: "end" } });
  else change(conversation, { anchor: { at: "end" } });
}

export async function reload() {
  const { conversation } = state;
  if (!conversation?.head) return;
  const middle = conversation.turns.at(-1)?.response.id;
  const wish = newWish();
  const show = (head) => readPatiently(conversation, () => showBranch(conversation, head, { wish, keepsSending: !conversation.after, ...(conversation.after && middle ? { around: middle } : {}) }));
  const unlessGone = (error) => {
    if (error.status !== 404 || !conversation.queue.length) throw error;
    return show(conversation.head);
  };
  await show(endOf(conversation)).catch(unlessGone)
    .catch((error) => {
      // The turn is gone, and the chat may not be.
      if (error.status !== 404 || !conversation.chatId) throw error;
      return api(`/v1/chats/${conversation.chatId}`).then((chat) => showBranch(conversation, chat.head, { wish, anchor: { at: "end" } }));
    }).catch((error) => change(conversation, { loading: false, error }));
}

// ---- single turns

export const readTurn = (id) => readUnlessRemoved(id, async () => (await api(turnsPath(id, { limit: 1 }))).data.at(-1));

export function replaceTurn(conversation, match, turn) {
  const current = state.conversation;
  if (current?.id !== conversation.id) return;
  change(conversation, { turns: current.turns.map((one) => (match(one) ? turn(one) : one)).filter(Boolean) });
}

const byId = (id) => (turn) => turn.response.id === id;

/** Puts the stored form of a turn in the place of what is shown. */
export async function refreshTurn(conversation, id) {
  const turn = await readPatiently(conversation, () => readTurn(id)).catch(() => null);
  if (turn) replaceTurn(conversation, byId(id), (shown) => ({ ...turn, key: shown.key,
    live: isRunning(turn.response.status) ? shown.live : null }));
}

// ---- following the turn that runs

let following = null;

export function stopFollowing() {
  following?.abort();
  following = null;
}

/** Reads the events of the last turn while that runs and the page is looked at. */
export function followLast() {
  const { conversation } = state;
  const turn = conversation?.turns.at(-1);
  if (!turn?.response.id || conversation.after || !isRunning(turn.response.status)) return;
  if (document.hidden && !turn.live) return;
  follow(conversation, turn.response.id, turn.live ?? new LiveTurn(turn.response));
}

/** Takes what is stored of each turn that was followed until another one began. */
const settleOthers = (conversation, id) => state.conversation.turns
  .filter((turn) => turn.live && turn.response.id !== id)
  .forEach((turn) => refreshTurn(conversation, turn.response.id));

/** Follows one turn; `answer` is its stream where that is open already. */
export async function follow(conversation, id, live, answer = null) {
  if (state.conversation?.id !== conversation.id) return answer?.body.cancel();
  stopFollowing();
  settleOthers(conversation, id);
  const control = new AbortController();
  following = control;
  replaceTurn(conversation, byId(id), (turn) => ({ ...turn, live }));
  try {
    await followTurn(live, { answer, signal: control.signal, onStalled: (stalled) => {
      const shown = state.conversation?.turns.find(byId(id));
      if (shown && Boolean(shown.stalled) !== stalled) replaceTurn(conversation, byId(id), (turn) => ({ ...turn, stalled }));
    } });
  } catch (error) {
    if (following === control) following = null;
    if (error.status === 404 && !conversation.temporary) removeTurn(conversation, id);
    // Nobody has the rest, and what is in view is nowhere else: it says so.
    else replaceTurn(conversation, byId(id), (turn) => ({ ...turn, live: null, stalled: false, isLost: true, response: { ...live.response, status: "failed" } }));
    return;
  }
  if (control.signal.aborted) return;
  if (following === control) following = null;
  // The response at its end is the stored one; numbers that only the window has are read again.
  replaceTurn(conversation, byId(id), (turn) => ({ ...turn, response: live.response, live: null, stalled: false }));
  if (!conversation.temporary) await refreshTurn(conversation, id);
  await showBegun(conversation);
  document.dispatchEvent(new CustomEvent("antiphon:turn-ended"));
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) stopFollowing();
  else followLast();
});

function removeTurn(conversation, id) {
  if (state.conversation?.turns.at(-1)?.response.id === id && state.conversation.turns.length > 1) {
    const turns = state.conversation.turns.slice(0, -1);
    change(conversation, { turns, head: turns.at(-1).response.id, total: state.conversation.total - 1 });
  } else reload();
}

// ---- what other tabs and programs do to the chat that is open

/** What happens while turns are being read: their answer may not have it. */
const delayed = [];

onFeed((event) => {
  if (!state.conversation?.loading) showChange(event);
  else if (event.chat_id) delayed.push(event);
});

async function showChange(event) {
  const { conversation } = state;
  if (!conversation?.chatId || event.chat_id !== conversation.chatId) return;
  const id = event.response_id;
  const shown = conversation.turns.some(byId(id));
  if (event.type === "chat.erased") {
    change(conversation, { error: new ApiError("This chat was erased.", 404), turns: [] });
  } else if (event.type === "turn.erased") {
    takeErasure(conversation, id, event.cascade);
    await showBegun(conversation);
  } else if (conversation.queue.some(byId(id))) {
    await showBegun(conversation);
  } else if (event.type === "turn.started") {
    if (!shown && !isSending(conversation)) await addFromElsewhere(conversation, id);
  } else if (["turn.ended", "turn.waiting"].includes(event.type)) {
    const turn = conversation.turns.find(byId(id));
    if (turn?.live) await takeStored(conversation, id, turn.live);
    else if (turn) await refreshTurn(conversation, id);
    else if (!turn && !isSending(conversation)) await addFromElsewhere(conversation, id);
    await showBegun(conversation);
  }
}

/** What is followed has ended: its last events are on their way, unless their connection is dead. */
async function takeStored(conversation, id, live) {
  await pause(1_500);
  if (live.done || state.conversation?.turns.find(byId(id))?.live !== live) return;
  stopFollowing();
  await refreshTurn(conversation, id);
}

/** Whether a turn is in view that the server has not confirmed. */
export const isSending = ({ turns }) => turns.some((turn) => !turn.response.id && !turn.error);

/** The turns of a view but for those that were refused. */
export const withoutRefused = (turns) => turns.filter((turn) => turn.response.id || !turn.error);

/** A turn that began elsewhere: shown if it continues what is shown, counted if it is a version. */
async function addFromElsewhere(conversation, id) {
  const turn = await readPatiently(conversation, () => readTurn(id)).catch(() => null);
  const current = state.conversation;
  if (!turn || current?.id !== conversation.id || current.turns.some(byId(id)) || erased.has(id)) return;
  if (isQueued(turn)) {
    await readQueue(conversation, id);
    return;
  }
  const parent = turn.response.previous_response_id ?? null;
  if (parent === current.head) {
    // What is being sent from here continues the same turn: that is what is shown.
    if (isSending(current)) return;
    appendTurn(conversation, turn);
    return;
  }
  if (parent && !current.turns.some(byId(parent))) ahead.set(parent, id);
  countVersion(conversation, turn);
}

/** Shows a turn that was sent from here, where its chat is open: it may have been left and opened again meanwhile. */
export async function showSent(conversation, id) {
  while (state.conversation?.loading) await pause(20);
  const current = state.conversation;
  const isOpen = current && (current.id === conversation.id || conversation.chatId && current.chatId === conversation.chatId);
  if (isOpen) await addFromElsewhere(current, id);
}

/** A turn that is not shown may be a version of one that is. */
function countVersion(conversation, { response, position, siblings }) {
  const parent = response.previous_response_id ?? null;
  replaceTurn(conversation, (one) => (one.response.previous_response_id ?? null) === parent && one.position === position,
    (one) => ({ ...one, siblings: { ...one.siblings, count: siblings.count } }));
}
