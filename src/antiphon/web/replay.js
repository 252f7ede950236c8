/** Replay: a stored answer again, in the pieces and at the times in which it came. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { api, readEvents, request } from "./core.js";
import { Dialog } from "./dialog.js";
import { MarkdownStream } from "./markdown.js";
import { FoldedPrograms } from "./programs.js";

const LONGEST = 5; // seconds without a word that are waited for
const EVEN = 30; // pieces a second where nobody noted when they came

/** Waits, or until `skip` is called. */
const wait = (seconds, skipped) => new Promise((resolve) => {
  setTimeout(resolve, seconds * 1000);
  skipped.skip = resolve;
});

/** The pieces of an answer: {text, at}, each at how many seconds after the first of them. */
async function readPieces(path) {
  const [{ data: beats }, answer] = await Promise.all([api(`${path}/rhythm`), request(`${path}?stream=true&starting_after=-1`)]);
  const pieces = [];
  let beat = 0;
  for await (const { data } of readEvents(answer)) {
    if (data.type !== "response.output_text.delta") continue;
    while (beats[beat + 1]?.deltas <= pieces.length) beat++;
    pieces.push({ text: data.delta, at: beats[beat]?.seconds ?? pieces.length / EVEN });
  }
  return pieces;
}

export default function Replay({ turn }) {
  const place = useRef();
  const skipped = useRef({}); // {isSkipped, skip: ends what is waited for}
  const [round, setRound] = useState(0);
  const [done, setDone] = useState(false);
  const [error, setError] = useState(null);
  const path = `/v1/responses/${turn.response.id}`;
  useEffect(() => {
    let left = false;
    setDone(false);
    setError(null);
    skipped.current = {};
    (async () => {
      const pieces = await readPieces(path);
      if (left) return;
      place.current.replaceChildren();
      const stream = new MarkdownStream(place.current);
      let text = "";
      for (const [index, piece] of pieces.entries()) {
        const passed = piece.at - (pieces[index - 1] ?? piece).at;
        if (passed > 0 && !skipped.current.isSkipped) await wait(Math.min(passed, LONGEST), skipped.current);
        if (left) return;
        stream.update(text += piece.text);
      }
      stream.finish(text);
      setDone(true);
    })().catch((failure) => {
      if (left) return;
      setDone(true);
      setError(failure);
    });
    return () => { left = true; };
  }, [round]);
  return html`<${Dialog} title="Replay" wide=${true}>
    <div class="prose" ref=${place} aria-live="off"></div>
    ${error && html`<p class="failure" role="alert">${error.message}</p>`}
    <p class="row">${done
      ? html`<button type="button" key="again" class="button" data-first onClick=${() => setRound(round + 1)}>Again</button>`
      : html`<button type="button" key="skip" class="button" data-first onClick=${() => { skipped.current.isSkipped = true; skipped.current.skip?.(); }}>To the end</button>`}</p>
    <${FoldedPrograms} actions=${[{ name: "Its events", path: `${path}?stream=true`, streams: true }, { name: "When they came", path: `${path}/rhythm` }]} />
  <//>`;
}
