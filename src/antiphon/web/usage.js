/** Usage: turns, tokens and cost by day, model or key, as a chart and as a table. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, follow, query } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";

const DAY = 86_400;
const [WIDTH, HEIGHT] = [640, 160];
const MOST_GROUPS = 5; // that have a colour of their own
const number = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

const dayOf = (row) => (typeof row.day === "number" ? new Date(row.day * 1000).toISOString().slice(0, 10) : row.day);
const cost = (amount) => (amount === undefined || amount === null ? "–" : amount.toFixed(4));

const MEASURES = {
  tokens: { of: (row) => row.input_tokens + row.output_tokens, show: (sum) => `${short.format(sum)} tokens` },
  turns: { of: (row) => row.turns, show: (sum) => `${short.format(sum)} turns` },
  cost: { of: (row) => row.cost ?? 0, show: cost },
};

/** Every day from one to another, as in the rows. Pure. */
export function daysBetween(from, to) {
  const days = [];
  for (let at = from; at <= to; at += DAY) days.push(new Date(at * 1000).toISOString().slice(0, 10));
  return days;
}

/** Rows of days added up by what they are grouped by, the largest first. Pure. */
export function addUp(rows, by) {
  const sums = new Map();
  for (const row of rows) {
    const id = row[by] ?? "";
    const sum = sums.get(id) ?? { id, name: nameOf(row, by), rows: [], turns: 0, input_tokens: 0, cached_tokens: 0, output_tokens: 0 };
    for (const field of ["turns", "input_tokens", "cached_tokens", "output_tokens"]) sum[field] += row[field];
    if (row.cost !== undefined && row.cost !== null) sum.cost = (sum.cost ?? 0) + row.cost;
    sum.rows.push(row);
    sums.set(id, sum);
  }
  return [...sums.values()].sort((a, b) => MEASURES.tokens.of(b) - MEASURES.tokens.of(a));
}

const nameOf = (row, by) => by === "key" ? row.key_name ?? row.key ?? "without a key" : row[by] ?? "–";

/** What is stacked in a bar: {name, style, rows, of}. */
function layersOf(rows, by, measure) {
  const { of } = MEASURES[measure];
  if (by !== "day") {
    const groups = addUp(rows, by).sort((a, b) => of(b) - of(a));
    const others = groups.slice(MOST_GROUPS).flatMap((one) => one.rows);
    return [...groups.slice(0, MOST_GROUPS).map(({ name, rows: own }, index) => ({ name, style: `group-${index}`, rows: own, of })),
      ...(others.length ? [{ name: "others", style: "group-others", rows: others, of }] : [])];
  }
  if (measure !== "tokens") return [{ name: measure, style: "out", rows, of }];
  return [
    { name: "cached", style: "cached", rows, of: (row) => row.cached_tokens },
    { name: "in", style: "in", rows, of: (row) => row.input_tokens - row.cached_tokens },
    { name: "out", style: "out", rows, of: (row) => row.output_tokens },
  ];
}

/** Bars by day, of layers that stand on each other. The table says the same. */
function Chart({ days, layers, show }) {
  const sums = layers.map(({ rows, of }) => {
    const byDay = new Map();
    for (const row of rows) byDay.set(dayOf(row), (byDay.get(dayOf(row)) ?? 0) + of(row));
    return days.map((day) => byDay.get(day) ?? 0);
  });
  const totals = days.map((_day, index) => sums.reduce((total, values) => total + values[index], 0));
  const most = Math.max(...totals) || 1;
  const step = WIDTH / days.length;
  return html`<figure class="chart" aria-hidden="true"><div class="ends"><span>${show(Math.max(...totals))}</span></div><svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`}>
    <path class="axis" d=${`M0 ${HEIGHT}H${WIDTH}M0 0.5H${WIDTH}`} />
    ${days.map((day, index) => {
      let top = HEIGHT;
      return html`<g key=${day}><title>${`${day}: ${show(totals[index])}`}</title>${layers.map(({ style }, layer) => {
        const height = (sums[layer][index] / most) * HEIGHT;
        top -= height;
        return height > 0 && html`<rect class=${style} x=${index * step + step * 0.15} width=${step * 0.7} y=${top} height=${height} />`;
      })}</g>`;
    })}
    </svg><div class="ends"><span>${days[0]}</span><span>${days.at(-1)}</span></div>
    ${layers.length > 1 && html`<figcaption>${layers.map(({ name, style }) => html`<span class="legend" key=${style}><span class=${`swatch ${style}`}></span>${name}</span>`)}</figcaption>`}</figure>`;
}

/** What there is, and what goes next. */
function Stored() {
  const [store, setStore] = useState(null);
  useEffect(() => { api("/v1/usage/store").then(setStore, () => {}); }, []);
  if (!store) return null;
  const next = store.expires_next;
  const counts = [["chats", store.chats], ["conversations", store.conversations], ["turns", store.turns]].filter(([name, count]) => count || name !== "conversations");
  return html`<section aria-label="What is stored"><h3>What is stored</h3><p>
    ${counts.map(([name, count]) => `${number.format(count)}${count >= store.counted_to ? "+" : ""} ${count === 1 ? name.slice(0, -1) : name}`).join(", ")}${store.bytes !== undefined && `; ${bytes(store.bytes)} on disk`}.
    ${next && html` Next to expire: <a href=${`/c/${next.chat_id}`} onClick=${(event) => { closeDialog(); follow(event); }}>${next.title || "Untitled"}</a>, ${new Date(next.expires_at * 1000).toLocaleDateString()}.`}</p></section>`;
}

const bytes = (count) => count < 1_000_000 ? `${number.format(Math.ceil(count / 1000))} KB` : `${short.format(count / 1_000_000)} MB`;

export default function Usage() {
  const [days, setDays] = useState(30);
  const [by, setBy] = useState("day");
  const [measure, setMeasure] = useState("tokens");
  const [hasKeys, setHasKeys] = useState(false);
  const [found, setFound] = useState(null); // {by, rows}: what is shown until others have come
  const [error, setError] = useState(null);
  const today = Math.floor(Date.now() / 1000 / DAY) * DAY;
  const from = today - (days - 1) * DAY;
  useEffect(() => {
    let left = false;
    const read = (grouping) => api(query("/v1/usage", { from, to: today + DAY, by: grouping })).then(({ data }) => data);
    read(by === "day" ? "day" : `day,${by}`).then((rows) => {
      if (left) return;
      setFound({ by, rows });
      setError(null);
    }, (failure) => !left && setError(failure));
    read("key").then((rows) => !left && setHasKeys(rows.length > 0), () => {});
    return () => { left = true; };
  }, [days, by]);
  const rows = found?.rows ?? [];
  const sums = found && (found.by === "day" ? rows.map((row) => ({ ...row, id: dayOf(row), name: dayOf(row) })) : addUp(rows, found.by));
  const hasCost = rows.some((one) => one.cost !== undefined && one.cost !== null);
  const choice = (id, label, value, change, options) => html`<label for=${id}>${label}</label><select id=${id} data-first=${id === "usage-days"} value=${value} onChange=${(event) => change(event.target.value)}>${options.map(([name, words]) => html`<option key=${name} value=${name}>${words}</option>`)}</select>`;
  return html`<${Dialog} title="Usage" wide=${true}>
    <p class="row">${choice("usage-days", "The last", days, (value) => setDays(Number(value)), [[7, "7 days"], [30, "30 days"], [90, "90 days"]])}
      ${choice("usage-by", "by", by, setBy, [["day", "day"], ["model", "model"], ...(hasKeys || by === "key" ? [["key", "key"]] : [])])}
      ${choice("usage-measure", "in", measure, setMeasure, [["tokens", "tokens"], ["turns", "turns"], ...(hasCost || measure === "cost" ? [["cost", "cost"]] : [])])}</p>
    ${error && html`<p class="failure" role="alert">${error.message}</p>`}
    ${rows.length > 0 && html`<${Chart} days=${daysBetween(from, today)} layers=${layersOf(rows, found.by, measure)} show=${MEASURES[measure].show} />`}
    ${sums && (sums.length ? html`<div class="table" tabindex="0" role="region" aria-label="Usage as a table"><table class="numbers"><thead><tr><th scope="col">${{ day: "Day", model: "Model", key: "Key" }[found.by]}</th><th scope="col">Turns</th><th scope="col">Tokens in</th><th scope="col">Cached</th><th scope="col">Out</th>${hasCost && html`<th scope="col">Cost</th>`}</tr></thead>
      <tbody>${sums.map((one) => html`<tr key=${one.id}><th scope="row">${one.name}</th><td>${number.format(one.turns)}</td><td>${number.format(one.input_tokens)}</td><td>${number.format(one.cached_tokens)}</td><td>${number.format(one.output_tokens)}</td>${hasCost && html`<td>${cost(one.cost)}</td>`}</tr>`)}</tbody></table></div>`
      : html`<p class="hint">Nothing was used in the last ${days} days. Every turn is counted here, whichever program began it.</p>`)}
    <${Stored} />
    <${FoldedPrograms} actions=${[
      { name: "What was used", path: query("/v1/usage", { by: by === "day" ? by : `day,${by}`, from: new Date(from * 1000).toISOString().slice(0, 10) }), terminal: `antiphon usage --by ${by} --days ${days}` },
      { name: "What is stored", path: "/v1/usage/store" },
    ]} />
  <//>`;
}
