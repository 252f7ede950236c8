/** Jump: goes to a turn of a long chat by its number or its day. */
import { html, useState } from "./vendor/preact.js";
import { api, query, state } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";

/** The number of the first turn that began at a time or later: found by halving. */
async function positionAt(head, total, seconds) {
  let [low, high] = [0, total - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    const { data } = await api(query(`/v1/responses/${head}/turns`, { position: middle, limit: 1 }));
    if (data[0].response.created_at < seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}

export default function Jump({ total, jumpTo }) {
  const [number, setNumber] = useState("");
  const [day, setDay] = useState("");
  const go = (position) => { closeDialog(); jumpTo(Math.max(0, Math.min(total - 1, position))); };
  const goToDay = async (event) => {
    event.preventDefault();
    if (day) go(await positionAt(state.conversation.head, total, new Date(`${day}T00:00`).getTime() / 1000));
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
