/** Replay: a stored answer again, in the pieces in which it came. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { readEvents, request } from "./core.js";
import { Dialog } from "./dialog.js";
import { MarkdownStream } from "./markdown.js";

const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export default function Replay({ turn }) {
  const place = useRef();
  const [round, setRound] = useState(0);
  const [done, setDone] = useState(false);
  const { id, created_at: began, completed_at: ended } = turn.response;
  useEffect(() => {
    let left = false;
    setDone(false);
    (async () => {
      const pieces = [];
      for await (const { data } of readEvents(await request(`/v1/responses/${id}?stream=true&starting_after=-1`)))
        if (data.type === "response.output_text.delta") pieces.push(data.delta);
      place.current.replaceChildren();
      const stream = new MarkdownStream(place.current);
      const seconds = Math.min(20, Math.max(1, (ended ?? 0) - (began ?? 0)));
      const each = Math.max(4, (seconds * 1000) / Math.max(1, pieces.length));
      let text = "";
      for (const piece of pieces) {
        if (left) return;
        stream.update(text += piece);
        await wait(each);
      }
      stream.finish(text);
      setDone(true);
    })().catch(() => setDone(true));
    return () => { left = true; };
  }, [round]);
  return html`<${Dialog} title="Replay" wide=${true}>
    <div class="prose" ref=${place} aria-live="off"></div>
    <p class="row"><button type="button" class="button" data-first disabled=${!done} onClick=${() => setRound(round + 1)}>Again</button></p>
  <//>`;
}
