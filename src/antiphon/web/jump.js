/** Jump: goes to a turn of a long chat by its number or its day. */
import { html, useState } from "./vendor/preact.js";
import { api, notify, query, state, turnsPath } from "./core.js";
import { closeAfterWork, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";
import { readPatiently } from "./turn_window.js";

const PROBE = 8; // turns that are read at once

/** The number of the first turn that began at a time or later: looked for where it is if turns came evenly, and
 * by halving where they did not. */
async function positionAt(head, total, seconds) {
  let [low, high] = [0, total - 1];
  let [begin, end] = [state.chat?.created_at, state.chat?.updated_at];
  let isEven = true;
  while (low < high) {
    const width = high - low;
    const share = isEven && end > begin ? (seconds - begin) / (end - begin) : 0.5;
    const position = low + Math.floor(width * Math.max(0, Math.min(1, share)));
    const { data } = await readPatiently(state.conversation, () => api(turnsPath(head, { position, limit: PROBE })));
    const index = data.findIndex((one) => one.response.created_at >= seconds);
    if (index > 0) return data[index].position;
    const edge = index === 0 ? data[0] : data.at(-1);
    if (index === 0) [high, end] = [edge.position, edge.response.created_at];
    else [low, begin] = [edge.position + 1, edge.response.created_at];
    isEven = high - low < width / 2;
  }
  return low;
}

export default function Jump({ total, jumpTo }) {
  const [number, setNumber] = useState("");
  const [day, setDay] = useState("");
  const goFrom = (dialog, position) => { if (closeAfterWork(dialog)) jumpTo(Math.max(0, Math.min(total - 1, position))); };
  const go = (position) => goFrom(state.dialog, position);
  const goToDay = async (event) => {
    event.preventDefault();
    const { dialog } = state;
    if (day) await positionAt(state.conversation.head, total, new Date(`${day}T00:00`).getTime() / 1000).then((position) => goFrom(dialog, position), (error) => notify(error.message));
  };
  return html`<${Dialog} title="Go to a turn">
    <form class="row" onSubmit=${(event) => { event.preventDefault(); if (number) go(Number(number) - 1); }}>
      <label for="jump-number">Number</label>
      <input id="jump-number" type="number" data-first min="1" max=${total} placeholder=${`1 to ${total}`} value=${number} onInput=${(event) => setNumber(event.target.value)} />
      <button class="button primary">Go</button>
    </form>
    <form class="row" onSubmit=${goToDay}>
      <label for="jump-day">Day</label>
      <input id="jump-day" type="date" class="field" value=${day} onInput=${(event) => setDay(event.target.value)} />
      <button class="button">Go</button>
    </form>
    <p class="row"><button type="button" class="button" onClick=${() => go(0)}>First turn</button><button type="button" class="button" onClick=${() => go(total - 1)}>Last turn</button></p>
    <${FoldedPrograms} actions=${[{ name: "Read the turns there", path: query(`/v1/responses/${state.conversation.head}/turns`, { position: number ? Number(number) - 1 : 0, limit: 20 }) }]} />
  <//>`;
}
