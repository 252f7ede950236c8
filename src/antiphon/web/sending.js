/** Sending: every message has an idempotency key and waits in an outbox until it is stored.
 *
 * So a second attempt after a broken connection, a reload or another tab's is the same turn. */
import { api, ApiError, heldLocks, isDecided, newKey, notify, pause, readEvents, request, save, set, state, withLock } from "./core.js";

const DATABASE = "antiphon.outbox";

let connection = null; // a promise; kept, as opening takes longer than writing

const database = () => (connection ??= new Promise((resolve, reject) => {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("messages", { keyPath: "id" });
  opening.onsuccess = () => {
    const opened = opening.result;
    opened.onclose = disconnect;
    opened.onversionchange = () => { opened.close(); disconnect(); };
    resolve(opened);
  };
  opening.onerror = () => reject(opening.error);
}));

const disconnect = () => { connection = null; };

const transact = (opened, mode, act) => new Promise((resolve, reject) => {
  const transaction = opened.transaction("messages", mode, { durability: "strict" });
  const asked = act(transaction.objectStore("messages"));
  transaction.oncomplete = () => resolve(asked.result);
  transaction.onerror = () => reject(transaction.error);
  transaction.onabort = () => reject(transaction.error);
});

async function outbox(mode, act) {
  // A browser may have closed what it had opened.
  for (let tries = 0; tries < 2; tries++) {
    try {
      return await transact(await database(), mode, act);
    } catch {
      disconnect();
    }
  }
  return undefined; // no database: the message is sent without
}

/** A message as it is sent, with its key. `keep` false: it is never written down.
 *
 * `replaces`: the queued turn in whose place it is, if that has not begun by then; `chat`: the id of its chat. */
export async function queueMessage(body, { keep = true, id = null, replaces = null, chat = null } = {}) {
  const entry = { id: id ?? newKey(), body: JSON.stringify(body), at: Date.now(), replaces, chat, isKept: keep };
  if (keep) {
    save("outbox", true);
    await outbox("readwrite", (store) => store.put(entry));
  }
  release(entry.id);
  return entry;
}

/** What was refused and has not been taken back, by its id: a function that lets other pages have it. */
const refused = new Map();

/** Whether this page has a message that was refused, whose words nobody has taken back. */
export const isRefused = (id) => refused.has(id);

/** Lets go of a message that was refused: it is sent again. */
export function release(id) {
  refused.get(id)?.();
  refused.delete(id);
}

/** Removes a message from the outbox: it is stored, or its words are somewhere else. */
export function forget(id) {
  const done = refused.get(id);
  refused.delete(id);
  const forgetting = outbox("readwrite", (store) => store.delete(id));
  if (done) forgetting.then(done);
  return forgetting;
}

/** Whether an earlier page has left a message behind: it is sent as it is then. */
export const isInOutbox = async (id) => (await outbox("readonly", (store) => store.count(id))) > 0;

// Results and decisions stay in their own boxes.
const partsOf = (input) => input.filter(({ type }) => type === "message")
  .flatMap(({ content }) => (typeof content === "string" ? { type: "input_text", text: content } : content));
const wordsOf = (input) => partsOf(input).map((part) => part.text ?? "").join("");
const picturesOf = (input) => partsOf(input).flatMap((part) => part.image_url ?? []);

/** Puts the words and pictures of a message into the message box. */
export const writeAgain = (input) =>
  document.dispatchEvent(new CustomEvent("antiphon:write", { detail: { words: wordsOf(input), pictures: picturesOf(input) } }));

/** Says that a message was refused which is not in view, and gives its words back to be changed.
 *
 * `then` is called once they are in the message box, or nobody wants them; `tryAgain` sends it as it was. */
export function giveBack(input, { message }, then = () => {}, tryAgain = null) {
  const words = wordsOf(input);
  const name = words ? `“${words.slice(0, 60)}”` : "A message";
  const write = { label: "Write it again", run: () => { writeAgain(input); then(); } };
  const again = tryAgain ? [{ label: "Try again", run: tryAgain }] : [];
  notify(`${name} could not be sent: ${message}`, [...again, write, { label: "Discard", run: then }], 0);
}

/** Notes that something is being sent to a chat: what waits in its queue goes behind that. Call what it returns once. */
export function beginSending(chat) {
  if (!chat) return () => {};
  set({ sending: [...state.sending, chat] });
  return () => {
    const index = state.sending.indexOf(chat);
    set({ sending: state.sending.filter((_, place) => place !== index) });
  };
}

/** Sends a message until it is stored; the response as it was created, and the stream it came by.
 *
 * Raises ApiError where the server refuses it: its words stay in the outbox, for the next page, until
 * `forget` is called. `prepare` is done once before it, `onStalled` with true while the server is not
 * reached. One tab at a time has a message. */
export function deliver(entry, { prepare = async () => {}, onStalled = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    withLock(lockName(entry), () => attemptUntilStored(entry, prepare, onStalled).then(async (begun) => {
      const forgetting = forget(entry.id);
      resolve(begun);
      // Nobody waits for this, but no other tab sends it meanwhile.
      await forgetting;
    }, async (error) => {
      if (!hasUnsavedWords(entry, error)) {
        reject(error);
        return forget(entry.id);
      }
      await outbox("readwrite", (store) => store.put({ ...entry, refused: error.message }));
      const taken = untilTaken(entry.id);
      reject(error);
      return taken;
    }));
  });
}

const lockName = ({ id }) => `antiphon.send.${id}`;
const untilTaken = (id) => new Promise((done) => refused.set(id, done));

/** Whether a refused message's words are nowhere but here: those of a decision or a result stay in their box. */
function hasUnsavedWords({ isKept, body }, error) {
  const { input } = JSON.parse(body);
  return isKept && !isSent(error) && !error.responseId && Boolean(wordsOf(input) || picturesOf(input).length);
}

async function attemptUntilStored(entry, prepare, onStalled) {
  let isPrepared = false;
  for (let failures = 0; ; failures++) {
    try {
      // Once: the server may have taken the message although its answer was lost.
      if (!isPrepared) await prepare();
      isPrepared = true;
      if (entry.replaces && !(await removeQueued(entry.replaces)))
        throw new ApiError("This message has been sent already.", 409, "response_begun");
      const answer = await request("/v1/responses", {
        method: "POST", headers: { "Idempotency-Key": entry.id, "Content-Type": "application/json" },
        body: new Blob([entry.body]),
      });
      const events = readEvents(answer);
      const first = await events.next();
      if (first.value?.data.response) {
        onStalled(false);
        return { response: first.value.data.response, first: first.value.data, events };
      }
      if (first.value?.data.type === "error") throw new ApiError(first.value.data.message ?? "The turn could not be started.", 500, first.value.data.code);
    } catch (error) {
      if (error instanceof ApiError && isFinal(error)) throw error;
    }
    onStalled(true);
    await pause(Math.min(400 * 2 ** failures, 8_000));
  }
}

/** What this tab takes off the queue, and what it reads, by the turn's id: neither meets the other. */
const removals = new Map();
const reads = new Map();

/** Erases a turn that is queued. False: it has begun, and stays. */
export function removeQueued(id) {
  if (!removals.has(id)) {
    const forgetRemoval = () => removals.delete(id);
    const removal = Promise.resolve(reads.get(id)).then(() => erase(id));
    removals.set(id, removal);
    removal.then((isRemoved) => isRemoved || forgetRemoval(), forgetRemoval);
  }
  return removals.get(id);
}

/** Reads a turn that may be queued. Raises ApiError: 404 without a request where this tab has removed it. */
export async function readUnlessRemoved(id, read) {
  if (await removals.get(id)?.catch(() => false)) throw new ApiError("This message was removed.", 404);
  const reading = read();
  const settled = Promise.allSettled([reads.get(id), reading]).then(() => reads.get(id) === settled && reads.delete(id));
  reads.set(id, settled);
  return reading;
}

async function erase(id) {
  const unlessGone = (error) => {
    if (error.status !== 404) throw error;
    return null;
  };
  const response = await api(`/v1/responses/${id}`).catch(unlessGone);
  if (response && response.status !== "queued") return false;
  if (response) await request(`/v1/responses/${id}`, { method: "DELETE" }).catch(unlessGone);
  return true;
}

/** Whether a refusal says that the message was sent before, behind another turn or by another page. */
export const isSent = (error) => isDecided(error) || error.code === "response_begun";

/** Whether a refusal stands. Others are of a server that is stopping, busy or not there. */
function isFinal({ status, code, responseId }) {
  if (responseId) return true;
  if (code === "idempotency_key_in_progress") return false;
  return status < 500 && status !== 429 && status !== 408;
}

/** Sends what an earlier page left behind, and gives back what was refused; the feed tells every page of the turns.
 *
 * `show` is called with the chat, {chatId}, and the id of the turn that has been stored. */
export async function deliverLeftovers(show) {
  const entries = (await outbox("readonly", (store) => store.getAll())) ?? [];
  if (!entries.length) save("outbox", null);
  const held = new Set(await heldLocks());
  // One that is locked is another tab's: it is being sent there, or shown.
  for (const entry of entries.filter((one) => !held.has(lockName(one)))) {
    const giveEntryBack = (message) => giveBack(JSON.parse(entry.body).input, { message }, () => forget(entry.id));
    if (entry.refused) withLock(lockName(entry), async (lock) => {
      if (!lock || !(await isInOutbox(entry.id))) return;
      const taken = untilTaken(entry.id);
      giveEntryBack(entry.refused);
      await taken;
    }, { ifAvailable: true });
    else {
      const done = beginSending(entry.chat);
      deliver(entry).then(({ response, events }) => {
        events.return();
        return show({ chatId: entry.chat }, response.id);
      }, (error) => isRefused(entry.id) && giveEntryBack(error.message)).finally(done);
    }
  }
  set({ hasLeftovers: false });
}
