/** Compare: one question to several models, each an ordinary branch, side by side. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { api, navigate, notify, query, state } from "./core.js";
import { eraseLater } from "./app.js";
import { loadModels } from "./conversation.js";
import { closeDialog, Dialog } from "./dialog.js";
import { followTurn, LiveTurn } from "./live_turn.js";
import { MarkdownStream } from "./markdown.js";
import { FoldedPrograms, shellWord } from "./programs.js";
import { deliver, queueMessage } from "./sending.js";
import { answerText } from "./turns.js";
import { diffWords } from "./word_diff.js";

const MOST = 6;
const AT_ONCE = 3; // a browser has six connections to a server

/** Begins the turns: all continue the same turn, so each is a version of the others. */
async function begin(models, text, images, onBegun) {
  const { conversation } = state;
  const input = [{ type: "message", role: "user", content: [{ type: "input_text", text }, ...images.map((image_url) => ({ type: "input_image", image_url }))] }];
  let first = null;
  for (const model of models) {
    const place = conversation?.head ? { previous_response_id: conversation.head } : first ? { sibling_of: first } : {};
    const entry = await queueMessage({ model, input, background: true, stream: true, ...place }, { keep: false });
    // Its events are read by the column, of few turns at a time.
    const { response, events } = await deliver(entry);
    events.return();
    first ??= response.id;
    onBegun(new LiveTurn(response));
  }
}

/** The versions of a turn, of very many those around it. */
async function readVersions(id) {
  const { data } = await api(query(`/v1/responses/${id}/siblings`, { limit: MOST, around: true }));
  return Promise.all(data.map(async ({ response_id }) => {
    const response = await api(`/v1/responses/${response_id}`);
    const turn = new LiveTurn(response);
    turn.adopt(response);
    return turn;
  }));
}

function Column({ turn, other, onEnd, onErase }) {
  const place = useRef();
  const stream = useRef();
  const [, draw] = useState(0);
  useLayoutEffect(() => {
    stream.current = new MarkdownStream(place.current);
    let frame = 0;
    const update = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        const text = answerText({ response: turn.response });
        if (turn.done) stream.current.finish(text);
        else stream.current.update(text);
        draw((count) => count + 1);
        if (turn.done) onEnd();
      });
    };
    const stop = turn.watch(update);
    update();
    return () => { stop(); cancelAnimationFrame(frame); };
  }, [turn]);
  const { response } = turn;
  return html`<section class="column" aria-label=${response.model} aria-busy=${!turn.done}>
    <h3>${response.model}</h3>
    <div class="prose" ref=${place} hidden=${Boolean(other)}></div>
    ${other && html`<p class="plain">${diffWords(other, answerText({ response })).map(([kind, words]) => (kind === "=" ? words : kind === "+" ? html`<ins>${words}</ins>` : html`<del>${words}</del>`))}</p>`}
    ${!turn.done && html`<p class="waiting"><span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>${response.status === "queued" ? "Waiting" : "Answering"}</p>`}
    ${(turn.error ?? response.error) && html`<p class="failure">${(turn.error ?? response.error).message}</p>`}
    ${turn.done && html`<p class="facts">${response.usage ? `${response.usage.total_tokens} tokens` : ""}</p><p class="row">
      <button type="button" class="button primary" onClick=${() => { closeDialog(); navigate(`/r/${response.id}`); }}>Go on with this</button>
      <button type="button" class="button danger" onClick=${onErase}>Erase</button></p>`}
  </section>`;
}

/** What is asked once more beside an answer, and how all are read, as programs do it. */
const actionsOf = ({ id, model }, text) => [
  { name: "Ask once more", method: "POST", path: "/v1/responses", body: { model, sibling_of: id, input: text, background: true }, terminal: `antiphon chat --from ${id}\n/retry ${shellWord(model)}` },
  { name: "List the answers", path: `/v1/responses/${id}/siblings`, terminal: `antiphon chat --from ${id}\n/compare` },
];

/** Asks models about `text`, or shows the versions `of` a turn. */
export default function Compare({ text, images = [], done, of = null }) {
  const [models, setModels] = useState(state.models ?? []);
  const [counts, setCounts] = useState({});
  const [turns, setTurns] = useState(null);
  const [diff, setDiff] = useState(false);
  const [, draw] = useState(0);
  const control = useRef(new AbortController());
  useEffect(() => {
    if (of) readVersions(of).then(followAll, (error) => notify(error.message));
    else loadModels().then(setModels, (error) => notify(error.message));
    return () => control.current.abort();
  }, []);
  const chosen = models.flatMap((model) => Array(counts[model] ?? 0).fill(model));
  const count = (model, step) => setCounts({ ...counts, [model]: Math.max(0, Math.min(MOST, (counts[model] ?? 0) + step)) });
  const asked = useRef(false);
  const ask = async () => {
    // A second click may come before the first is drawn.
    if (asked.current) return;
    asked.current = true;
    const begun = [];
    setTurns([]);
    try {
      await begin(chosen, text, images, (turn) => { begun.push(turn); setTurns([...begun]); });
      done?.();
    } catch (error) {
      notify(error.message);
      if (!begun.length) {
        asked.current = false;
        setTurns(null);
        return;
      }
    }
    await followAll(begun);
  };
  const followAll = async (all) => {
    setTurns(all);
    const waiting = [...all];
    const work = async () => {
      for (let turn; (turn = waiting.shift()); ) await followTurn(turn, { signal: control.current.signal }).catch((error) => turn.fail(error));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  };
  const erase = (turn) => {
    const before = turns;
    setTurns((all) => all.filter((one) => one !== turn));
    eraseLater(`/v1/responses/${turn.response.id}`, "This answer will be erased.", () => setTurns((all) => before.filter((one) => one === turn || all.includes(one))));
  };
  if (!turns && of) return html`<${Dialog} title="Side by side" wide=${true}><p class="hint">…</p><//>`;
  if (!turns) return html`<${Dialog} title="Ask several models">
    <p class="plain excerpt">${text}</p>
    <ul class="plain-list">${models.map((model, index) => html`<li class="row" key=${model}><span class="grow">${model}</span>
      <button type="button" class="button" aria-label=${`One less of ${model}`} disabled=${!counts[model]} onClick=${() => count(model, -1)}>−</button><output aria-label=${`Answers of ${model}`}>${counts[model] ?? 0}</output>
      <button type="button" class="button" data-first=${index === 0} aria-label=${`One more of ${model}`} disabled=${chosen.length >= MOST} onClick=${() => count(model, 1)}>+</button></li>`)}</ul>
    <p class="row"><span class="hint grow">Each answer is a branch of its own. It is written to its end though you close this.</span><button type="button" class="button primary" disabled=${chosen.length < 1} onClick=${ask}>Ask ${chosen.length || ""}</button></p>
    <${FoldedPrograms} actions=${[{ name: "Ask the first", method: "POST", path: "/v1/responses", terminal: "antiphon chat",
      body: { model: chosen[0] ?? models[0] ?? "a model", input: text, background: true, ...(state.conversation?.head ? { previous_response_id: state.conversation.head } : {}) } }]} />
  <//>`;
  const first = turns[0] && answerText(turns[0]);
  const isDiff = diff && turns.length > 1;
  return html`<${Dialog} title="Side by side" wide=${true}>
    <p class="row"><span class="grow plain excerpt">${text}</span>${turns.length > 1 && turns.every((one) => one.done) && html`<button type="button" class="button" aria-pressed=${isDiff} onClick=${() => setDiff(!diff)}>Differences from the first</button>`}</p>
    <div class="columns">${turns.map((turn) => html`<${Column} key=${turn.response.id} turn=${turn} other=${isDiff ? first : null} onEnd=${() => draw((one) => one + 1)} onErase=${() => erase(turn)} />`)}</div>
    ${turns.length > 0 && html`<${FoldedPrograms} actions=${actionsOf(turns[0].response, text)} />`}
  <//>`;
}

