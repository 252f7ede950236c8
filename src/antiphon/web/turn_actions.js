/** Turn actions: what can be done with a turn: answer it, edit, ask again, branch, stop, erase. */
import { api, ApiError, decisionKey, keepWords, navigate, newKey, notify, query, request, set, settingsOf, siblingsPath, state } from "./core.js";
import { nextModel } from "./conversation.js";
import { LiveTurn } from "./live_turn.js";
import { beginSending, deliver, deliverLeftovers, forget, giveBack, isInOutbox, isRefused, isSent, queueMessage, release, removeQueued, writeAgain } from "./sending.js";
import { change, follow, isLastWish, isSending, moveTo, newWish, readPatiently, readTurn, reload, replaceTurn, showBegun, showBranch, showSent, stopFollowing, takeErasure, withoutRefused } from "./turn_window.js";
import { answerText, questionText } from "./turns.js";

const message = (text, images = []) => ({
  type: "message", role: "user",
  content: [...(text ? [{ type: "input_text", text }] : []), ...images.map((image_url) => ({ type: "input_image", image_url }))],
});

/** What is set for the next turn: model and system prompt, of the chat or of the new one. */
export function settings() {
  const last = state.conversation?.turns.at(-1)?.response;
  const own = settingsOf(state.conversation) ?? {};
  return {
    model: nextModel(state.conversation),
    instructions: own.instructions ?? last?.instructions ?? "",
  };
}

/** Sends a message that goes on from the end of the branch, as `start` does. */
export const send = (text, images, more) => start([message(text, images)], more);

/** Begins a turn in the open conversation, and shows it before the server has it.
 *
 * `siblingOf`: another version of that turn; `parent`: the turn to continue, null: the last one.
 * `id`: the key to send it with; `onKept` is called once the outbox has it. `replaces`: the queued
 * turn in whose place it is. */
export async function start(input, { siblingOf = null, parent = null, model = null, tools = [], id = null, onKept = () => {}, replaces = null } = {}) {
  // What waits for a turn that failed, or for a person, goes on behind this one.
  document.dispatchEvent(new CustomEvent("antiphon:take-back"));
  const { conversation } = state;
  const previous = siblingOf ? null : parent ?? conversation.head;
  const body = bodyOf(input, { model, tools });
  if (conversation.temporary) Object.assign(body, { store: false, input: [...itemsBefore(conversation, siblingOf), ...input] });
  else if (siblingOf) body.sibling_of = siblingOf.response.id;
  else if (previous) body.previous_response_id = previous;
  const pending = {
    parent: previous, key: crypto.randomUUID?.() ?? String(Math.random()), input, response: { id: null, status: "queued", output: [] },
    position: siblingOf ? siblingOf.position : conversation.total,
    // Seen before the server has it. Of a chat that is not stored, the version before is gone.
    siblings: siblingOf && !conversation.temporary ? { index: siblingOf.siblings.count, count: siblingOf.siblings.count + 1 } : { index: 0, count: 1 },
  };
  showPending(conversation, pending, siblingOf);
  const isMine = (turn) => turn.key === pending.key;
  const key = id ?? newKey();
  const done = beginSending(conversation.chatId);
  try {
    const prepare = continueConversation(body, conversation);
    const deliverOnce = async () => {
      const entry = await queueMessage(body, { keep: !conversation.temporary, id: key, replaces, chat: conversation.chatId });
      onKept();
      return deliver(entry, { prepare, onStalled: (stalled) => replaceTurn(conversation, isMine, (turn) => ({ ...turn, stalled })) });
    };
    const { response, first, events } = await deliverOnce().catch((error) => {
      // The chat went on with this model elsewhere, and nobody has chosen it here.
      if (error.code !== "model_not_found" || model || settingsOf(conversation)?.model) throw error;
      notify(`There is no model “${body.model}” here: the default one answers.`);
      delete body.model;
      change(conversation, { settings: { ...settingsOf(state.conversation), model: null } });
      return deliverOnce();
    });
    await showStarted(conversation, pending, response, first, events);
    return response;
  } catch (error) {
    if (id && isSent(error)) {
      // It was sent before, and went on from another turn: that is what there is. Or another decision was.
      replaceTurn(conversation, isMine, () => null);
      await reload();
      return null;
    }
    if (error instanceof ApiError && error.responseId) {
      const turn = await readTurn(error.responseId).catch(() => null);
      if (turn) {
        if (isInView(pending)) change(conversation, { head: error.responseId, total: turn.position + 1 });
        replaceTurn(conversation, isMine, () => ({ ...turn, key: pending.key }));
        return turn.response;
      }
    }
    const again = [input, { siblingOf, parent, model, tools, id: key }];
    // Nothing goes on from a version that has never begun: the branch that was in view is in view again.
    const isKeptInView = !siblingOf || conversation.temporary;
    replaceTurn(conversation, isMine, (turn) => (isKeptInView ? { ...turn, error, again } : null));
    if (!isKeptInView) {
      if (state.conversation?.id === conversation.id) await reload();
      if (!isRefused(key)) notify(error.message);
    }
    if (!conversation.temporary) giveBackUnlessShown({ ...pending, error, again }, siblingOf && conversation);
    return null;
  } finally {
    done();
  }
}

/** Gives back what was refused, unless that is in view; `conversation`: where it can be tried again as it was. */
export function giveBackUnlessShown({ key, input, error, again }, conversation = null) {
  const [, { id }] = again;
  if (!isRefused(id) || isInView({ key })) return;
  const tryAgain = conversation && (() => {
    // In another chat its words are all that there is.
    if (state.conversation?.id !== conversation.id) return giveBackUnlessShown({ key, input, error, again });
    release(id);
    return start(...again);
  });
  giveBack(input, error, () => forget(id), tryAgain);
}

/** Begins a turn by a button: its second click may come before the first is drawn. */
const startOnce = (...turn) => (isSending(state.conversation) ? null : start(...turn));

function bodyOf(input, { model = null, tools = [] } = {}) {
  const chosen = settings();
  return {
    input, stream: true,
    ...(model ?? chosen.model ? { model: model ?? chosen.model } : {}),
    ...(tools.length ? { tools } : {}),
    ...(chosen.instructions ? { instructions: chosen.instructions } : {}),
  };
}

export { forget, isInOutbox };

/** Has the server send a message once what is before it has been answered, also when no page is open.
 * `onKept` is called once the outbox has it, `onStored` with the turn's id before that is in view. */
export async function sendLater({ id, words, pictures, replaces = null, onKept, onStored }) {
  const { conversation } = state;
  const body = { ...bodyOf([message(words, pictures)]), background: true, on_busy: "queue" };
  const done = beginSending(conversation.chatId);
  try {
    const { response, events } = await deliverBehindQueue(conversation, body, async () => {
      const entry = await queueMessage(body, { id, replaces, chat: conversation.chatId });
      onKept();
      return entry;
    });
    events.return();
    onStored(response.id);
    await showSent(conversation, response.id);
  } catch (error) {
    if (!isSent(error)) throw error;
    await showBegun(conversation);
  } finally {
    done();
  }
}

/** Sends what an earlier page has left behind. */
export const sendLeftovers = () => deliverLeftovers(showSent);

/** Sends behind the last of the queue; that may be erased meanwhile: then behind the one before it. */
async function deliverBehindQueue(conversation, body, queueBody) {
  for (;;) {
    const { queue, head } = state.conversation?.id === conversation.id ? state.conversation : conversation;
    const last = queue.at(-1)?.response.id;
    body.previous_response_id = last ?? head;
    try {
      return await deliver(await queueBody());
    } catch (error) {
      if (error.code !== "previous_response_not_found" || !last || state.conversation?.id !== conversation.id) throw error;
      takeErasure(conversation, last);
    }
  }
}

/** The pictures of a stored message, as they are sent. */
export async function picturesOf(id) {
  const { data } = await readPatiently(state.conversation, () => api(`/v1/responses/${id}/input_items`));
  return data.flatMap((item) => (Array.isArray(item.content) ? item.content : [])).flatMap((part) => part.image_url ?? []);
}

/** Takes a message off the queue. False: it has begun, and is shown in its place. */
export async function removeLater(turn) {
  const { conversation } = state;
  const isRemoved = await removeQueued(turn.response.id);
  if (isRemoved) takeErasure(conversation, turn.response.id);
  await showBegun(conversation);
  return isRemoved;
}

/** What was said before a turn of a chat that is not stored; null: all of it. */
function itemsBefore({ turns }, turn) {
  const index = turns.findIndex((one) => one.response.id === turn?.response.id);
  return turns.slice(0, index < 0 ? turns.length : index).flatMap((one) => [...one.input, ...one.response.output]);
}

/** In a chat that a conversation names, a turn is the conversation's: other programs see it too.
 *
 * What it returns moves the conversation to the turn that is to be continued, before the turn is sent. */
function continueConversation(body, conversation) {
  const { conversation: name, id, head: current } = state.chat ?? {};
  const head = body.previous_response_id;
  if (!name || !head || id !== conversation.chatId) return async () => {};
  delete body.previous_response_id;
  // Behind the turn of another program that has just begun.
  Object.assign(body, { conversation: name, on_busy: "queue" });
  return async () => {
    if (current !== head) await api(`/v1/conversations/${name}`, { method: "POST", body: { head } });
  };
}

function showPending(conversation, pending, siblingOf) {
  const { turns } = state.conversation;
  const found = siblingOf ? turns.findIndex((turn) => turn === siblingOf || turn.response.id === siblingOf.response.id) : -1;
  // Tried again, the version before is out of view already.
  const index = found < 0 ? turns.length : found;
  const before = turns.slice(0, index);
  change(conversation, {
    // What was refused before it is given back: nothing has gone on from that.
    turns: [...(conversation.temporary ? before : withoutRefused(before)), pending],
    after: false, editing: null, total: pending.position + 1, anchor: { at: "end" },
  });
}

async function showStarted(conversation, pending, response, first, events) {
  if (!conversation.temporary) nameChat(conversation, response);
  if (!isInView(pending)) {
    // Another part of the chat is, or another version: it is shown there only if it belongs there.
    events.return();
    await showSent(conversation, response.id);
    return;
  }
  const live = new LiveTurn(response);
  live.apply(first);
  replaceTurn(conversation, (turn) => turn.key === pending.key, (turn) => ({ ...turn, response, live, stalled: false }));
  change(conversation, { head: response.id });
  // Until the chat's own address is known: whoever loads the page again finds the turn.
  if (state.route.kind === "new" && !conversation.temporary) history.replaceState(null, "", `/r/${response.id}`);
  // It has what was chosen for it.
  if (!conversation.temporary) keepWords(state.conversation?.chatId ?? "new", "settings", null);
  document.dispatchEvent(new CustomEvent("antiphon:turn-started"));
  // Another program's turn has come in between: it is shown as well.
  if (!conversation.temporary && pending.parent && response.previous_response_id !== pending.parent) reload();
  follow(conversation, response.id, live, eventsAsAnswer(events, live));
}

const isInView = ({ key }) => Boolean(state.conversation?.turns.some((turn) => turn.key === key));

/** The rest of a stream whose first event has been read, for `followTurn`. */
function eventsAsAnswer(events) {
  const encoder = new TextEncoder();
  return { body: new ReadableStream({
    async pull(controller) {
      const { value, done } = await events.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(`data: ${JSON.stringify(value.data)}\n\n`));
    },
    cancel: () => events.return(),
  }) };
}

/** Gives a new chat its address, by which it also learns what others do to it: the server may be away. */
async function nameChat(conversation, response) {
  const chat = await readPatiently(conversation, () => api(`/v1/chats/${response.id}`)).catch(() => null);
  if (!chat || state.conversation?.id !== conversation.id) return;
  set({ chat, chats: [chat, ...state.chats.filter((one) => one.id !== chat.id)] });
  if (!state.conversation.chatId) {
    change(conversation, { chatId: chat.id });
    navigate(`/c/${chat.id}`, { replace: true });
  }
}

/** Sends a turn again that could not be sent. */
export function retry(turn) {
  const [, { id }] = turn.again;
  if (!isInView(turn)) return null;
  release(id);
  removeRefused(turn);
  return start(...turn.again);
}

/** Takes the words of a turn that could not be sent back into the message box, to be changed. Those of a decision or
 * a result are still in a box of their own. */
export function rewrite(turn) {
  const [input, { id }] = turn.again;
  if (!isInView(turn)) return;
  if (input.some((item) => item.type === "message")) writeAgain(input);
  forget(id);
  removeRefused(turn);
}

function removeRefused({ key, position }) {
  const { conversation } = state;
  change(conversation, { turns: conversation.turns.filter((one) => one.key !== key), total: position });
}

export const isRunningHere = () => state.conversation?.turns.some((turn) => !turn.error
  && (!turn.response.id || turn.live || ["queued", "in_progress"].includes(turn.response.status)));

export async function stop() {
  const turn = state.conversation?.turns.at(-1);
  if (!turn?.response.id) return;
  if (state.conversation.temporary) {
    // Nobody else reads it: it ends with its reader.
    stopFollowing();
    replaceTurn(state.conversation, (one) => one === turn, (one) => ({ ...one, live: null, response: { ...one.live.response, status: "cancelled" } }));
    return;
  }
  // What has ended by itself is seen to have.
  await request(`/v1/responses/${turn.response.id}/cancel`, { method: "POST" })
    .catch((error) => error.code === "response_not_cancellable" || notify(error.message));
}

// ---- versions and branches

export const edit = (turn) => change(state.conversation, { editing: turn?.response.id ?? null });

/** Sends the input of a turn with other words: pictures and results of calls stay. `onKept`: as `start` has it. */
export function sendEdited(turn, text, onKept) {
  if (!text.trim()) return null;
  let first = true;
  const input = turn.input.map((item) => {
    if ((item.type ?? "message") !== "message" || item.role !== "user") return bare(item);
    const others = typeof item.content === "string" ? [] : item.content.filter((part) => part.type !== "input_text");
    const words = first ? [{ type: "input_text", text }] : [];
    first = false;
    return { type: "message", role: "user", content: [...words, ...others] };
  }).filter((item) => item.type !== "message" || item.content.length);
  return startOnce(input, { siblingOf: turn, onKept });
}

const bare = ({ id, status, ...item }) => item;

/** The same question again, to the same model or another one. */
export const regenerate = (turn, model = null) => startOnce(turn.input.map(bare), { siblingOf: turn, model: model ?? turn.response.model });

export const goOn = () => startOnce([message("Go on from where you stopped.")]);

/** Shows the branch up to a turn: what is sent next goes on from there. */
export function branchFrom(turn) {
  const { conversation } = state;
  const index = conversation.turns.findIndex((one) => one.response.id === turn.response.id);
  change(conversation, {
    head: turn.response.id, turns: conversation.turns.slice(0, index + 1), queue: [], after: false,
    total: turn.position + 1, anchor: { at: "end" },
  });
  notify("What you send now goes on from this turn.", { label: "Back", run: () => moveTo(conversation, { anchor: { at: "end" } }) });
  document.querySelector("#composer")?.focus();
}

/** The steps through versions that are under way: each goes on from what the one before it has shown. */
let steps = null; // {id: the conversation's, position, left, last: a promise, wish}

/** Shows another version of the turn at a place, with the newest that followed it, after the steps before. */
function takeStep(position, step) {
  const { id } = state.conversation;
  if (steps?.id !== id || !steps.left || !isLastWish(steps.wish)) steps = { id, left: 0, last: Promise.resolve(), wish: newWish() };
  const own = steps;
  Object.assign(own, { position, left: own.left + 1 });
  const show = () => readPatiently(state.conversation, () => showVersion(position, step, own.wish));
  own.last = own.last.then(() => (state.conversation?.id === id ? show() : null))
    .catch((error) => error instanceof ApiError && notify(error.message)).finally(() => { own.left -= 1; });
  return own.last;
}

async function showVersion(position, step, wish) {
  const { conversation } = state;
  const turn = conversation.turns.find((one) => one.position === position);
  if (!turn?.response.id) return;
  const { data } = await api(siblingsPath(turn.response.id));
  const other = data[data.findIndex((one) => one.response_id === turn.response.id) + step];
  if (!other) return;
  const article = document.querySelector(`[data-turn="${CSS.escape(turn.response.id)}"]`);
  const { activeElement } = document;
  // What has the focus goes with its turn: what takes its place there has it next.
  const focus = article?.contains(activeElement) ? activeElement.getAttribute("aria-label") : null;
  await showBranch(conversation, other.leaf, {
    wish, around: other.response_id, anchor: { id: other.response_id, at: "top", top: article?.getBoundingClientRect().top, focus } });
}

export const showSibling = (turn, step) => takeStep(turn.position, step);

const turnOf = (article) => state.conversation?.turns.find((one) => one.response.id && one.response.id === article?.dataset.turn);
const focusedTurn = () => turnOf(document.activeElement?.closest("[data-turn]"));

/** The version before or after that of the turn with the focus, else of the last that has any in view. Pressed
 * again before that is shown, it is one further of the same turn. */
export function showSiblingInView(step) {
  const { conversation } = state;
  const position = steps?.left && steps.id === conversation?.id ? steps.position : turnWithVersions()?.position;
  return position === undefined ? null : takeStep(position, step);
}

function turnWithVersions() {
  const seen = [...document.querySelectorAll("[data-turn]")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  }).map(turnOf);
  const focused = focusedTurn();
  return focused?.siblings.count > 1 ? focused : seen.filter((one) => one?.siblings.count > 1).at(-1);
}

/** "e" edits the turn with the focus or the last one, "r" asks it again. */
export const actOnFocusedTurn = (key) => actOnTurn(focusedTurn() ?? state.conversation?.turns.at(-1), key);

export function actOnTurn(turn, key) {
  if (!turn?.response.id || isRunningHere()) return;
  if (key === "e") edit(turn);
  else regenerate(turn);
}

// ---- approvals and results of calls

/** Approves or refuses a call. Raises ApiError. */
export async function decide(turn, item, approve, reason = "") {
  if (isSending(state.conversation)) return;
  const input = [{ type: "mcp_approval_response", approval_request_id: item.id, approve, ...(reason ? { reason } : {}) }];
  // The tools of a request are its own: a server is named again, so that the call can run.
  const tools = turn.response.tools?.filter((one) => one.type === "mcp") ?? [];
  const { conversation } = state;
  const response = await start(input, { parent: turn.response.id, tools, id: decisionKey(item.id) });
  if (response) return;
  const { data } = await api(`/v1/responses/${turn.response.id}/children`);
  if (!data.length) throw new ApiError("The decision could not be sent.", 500);
  notify("Somebody has decided on this call already.");
  await showBranch(conversation, data.at(-1).leaf, { anchor: { at: "end" } });
}

export const giveOutput = (turn, item, output) => startOnce([{
  type: item.type === "custom_tool_call" ? "custom_tool_call_output" : "function_call_output", call_id: item.call_id, output,
}]);

// ---- erasing

/** Erases a turn, and what followed it where `cascade` is set. */
export async function erase(turn, cascade) {
  await request(query(`/v1/responses/${turn.response.id}`, cascade ? { cascade: true } : {}), { method: "DELETE" });
  await reload();
}

export const permalink = (turn) => `${location.origin}/r/${turn.response.id}`;
export const turnAsMarkdown = (turn) => `## Question\n\n${questionText(turn)}\n\n## Answer\n\n${answerText(turn)}\n`;
