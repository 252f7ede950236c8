/** Usage: turns, tokens and cost by day or model, as a chart and as a table. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, follow, query } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";

const DAY = 86_400;
const [WIDTH, HEIGHT] = [640, 160];
const number = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

const dayOf = (row) => (typeof row.day === "number" ? new Date(row.day * 1000).toISOString().slice(0, 10) : row.day);

/** The rows of each day from one to another, those without turns too. Pure. */
export function fillDays(rows, from, to) {
  const byDay = new Map(rows.map((row) => [dayOf(row), row]));
  const days = [];
  for (let at = from; at <= to; at += DAY) {
    const day = new Date(at * 1000).toISOString().slice(0, 10);
    days.push(byDay.get(day) ?? { day, turns: 0, input_tokens: 0, cached_tokens: 0, output_tokens: 0 });
  }
  return days;
}

/** Bars of tokens by day: cached, in and out, one on another. The table says the same. */
function Chart({ days }) {
  const most = Math.max(1, ...days.map((one) => one.input_tokens + one.output_tokens));
  const step = WIDTH / days.length;
  const bar = (index, from, to, name) => html`<rect class=${name} x=${index * step + step * 0.15} width=${step * 0.7} y=${HEIGHT - (to / most) * HEIGHT} height=${((to - from) / most) * HEIGHT} />`;
  return html`<figure class="chart"><div class="ends" aria-hidden="true"><span>${short.format(most)} tokens</span></div><svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
    <path class="axis" d=${`M0 ${HEIGHT}H${WIDTH}M0 0.5H${WIDTH}`} />
    ${days.map((one, index) => html`<g key=${one.day}><title>${`${dayOf(one)}: ${number.format(one.input_tokens + one.output_tokens)} tokens`}</title>
      ${bar(index, 0, one.cached_tokens, "cached")}${bar(index, one.cached_tokens, one.input_tokens, "in")}${bar(index, one.input_tokens, one.input_tokens + one.output_tokens, "out")}</g>`)}
    </svg><div class="ends" aria-hidden="true"><span>${dayOf(days[0])}</span><span>${dayOf(days.at(-1))}</span></div>
    <figcaption><span class="swatch cached"></span>cached <span class="swatch in"></span>in <span class="swatch out"></span>out</figcaption></figure>`;
}

/** What there is, and what goes next. */
function Stored() {
  const [store, setStore] = useState(null);
  useEffect(() => { api("/v1/usage/store").then(setStore, () => {}); }, []);
  if (!store) return null;
  const next = store.expires_next;
  const counts = [["chats", store.chats], ["conversations", store.conversations], ["turns", store.turns]].filter(([name, count]) => count || name !== "conversations");
  return html`<section aria-label="What is stored"><h3>What is stored</h3><p>
    ${counts.map(([name, count]) => `${number.format(count)} ${count === 1 ? name.slice(0, -1) : name}`).join(", ")}${store.bytes !== undefined && `; ${bytes(store.bytes)} on disk`}.
    ${next && html` Next to expire: <a href=${`/c/${next.chat_id}`} onClick=${(event) => { closeDialog(); follow(event); }}>${next.title || "Untitled"}</a>, ${new Date(next.expires_at * 1000).toLocaleDateString()}.`}</p></section>`;
}

const bytes = (count) => count < 1_000_000 ? `${number.format(Math.ceil(count / 1000))} KB` : `${short.format(count / 1_000_000)} MB`;

export default function Usage() {
  const [days, setDays] = useState(30);
  const [by, setBy] = useState("day");
  const [rows, setRows] = useState(null);
  const [error, setError] = useState(null);
  const today = Math.floor(Date.now() / 1000 / DAY) * DAY;
  const from = today - (days - 1) * DAY;
  useEffect(() => {
    setRows(null);
    api(query("/v1/usage", { from, to: today + DAY, by })).then(({ data }) => setRows(data), setError);
  }, [days, by]);
  const first = { day: "Day", model: "Model" }[by];
  const hasCost = rows?.some((one) => one.cost !== undefined && one.cost !== null);
  return html`<${Dialog} title="Usage" wide=${true}>
    <p class="row"><label for="usage-days">The last</label>
      <select id="usage-days" data-first value=${days} onChange=${(event) => setDays(Number(event.target.value))}><option value="7">7 days</option><option value="30">30 days</option><option value="90">90 days</option></select>
      <label for="usage-by">by</label>
      <select id="usage-by" value=${by} onChange=${(event) => setBy(event.target.value)}><option value="day">day</option><option value="model">model</option></select></p>
    ${error && html`<p class="failure" role="alert">${error.message}</p>`}
    ${rows && by === "day" && html`<${Chart} days=${fillDays(rows, from, today)} />`}
    ${rows && (rows.length ? html`<div class="table" tabindex="0" role="region" aria-label="Usage as a table"><table class="numbers"><thead><tr><th scope="col">${first}</th><th scope="col">Turns</th><th scope="col">Tokens in</th><th scope="col">cached</th><th scope="col">out</th>${hasCost && html`<th scope="col">Cost</th>`}</tr></thead>
      <tbody>${rows.map((one, index) => html`<tr key=${index}><th scope="row">${by === "day" ? dayOf(one) : one[by] ?? "–"}</th><td>${number.format(one.turns)}</td><td>${number.format(one.input_tokens)}</td><td>${number.format(one.cached_tokens)}</td><td>${number.format(one.output_tokens)}</td>${hasCost && html`<td>${one.cost?.toFixed(4) ?? "–"}</td>`}</tr>`)}</tbody></table></div>`
      : html`<p class="hint">Nothing in this time.</p>`)}
    <${Stored} />
  <//>`;
}
