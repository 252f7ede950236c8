/** Branch map: every branch of a chat below the chat, each named by the first words that others do not have. */
import { html, useEffect, useLayoutEffect, useMemo, useState } from "./vendor/preact.js";
import { api, memo, navigate, query, state, turnsPath } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";
import { answerText, questionText } from "./turns.js";

const MOST = 1000;
const MOST_READ = 60; // turns whose answers are read for the names
const STEP = 30; // rows that are drawn together
const ROW = 52; // pixels, as in page.css
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Branches so that those which leave the same turn stand together, oldest fork first. Pure. */
export const groupByFork = (branches) => groupedBy("forks_from", branches).flat();

const oneLine = (text) => text.replace(/\s+/g, " ").trim();

/** Texts without the words that all of them begin with, where those are three or more. Pure. */
export function differingWords(texts) {
  const [first, ...others] = texts.map((one) => oneLine(one).split(" "));
  let same = 0;
  while (same < first.length - 1 && others.every((one) => one.length > same + 1 && one[same] === first[same])) same++;
  return others.length && same > 2 ? [first, ...others].map((one) => `… ${one.slice(same).join(" ")}`) : texts;
}

const groupedBy = (name, all) => [...Map.groupBy(all, (one) => one[name]).values()];

/** The first turn of a branch that others do not have. */
const readFirstTurn = async ({ id, fork }) =>
  (await api(turnsPath(id, { ...(fork ? { after: fork } : { position: 0 }), limit: 1 }))).data[0];

/** What tells apart the branches that leave one turn: {name, question} by their ids. A question that was asked
 * again is the same in several: their answers differ. */
async function nameBranches(branches) {
  const all = branches.map((one) => ({ id: one.response_id, fork: one.forks_from ?? "", words: one.opening ?? "" }));
  // The branch that others leave is one of them behind the first fork.
  const trunk = all.find((one) => !one.fork);
  const fork = all.find((one) => one.fork)?.fork;
  if (trunk && fork) {
    trunk.fork = fork;
    trunk.turn = await readFirstTurn(trunk);
    const words = trunk.turn ? oneLine(questionText(trunk.turn)) : trunk.words;
    const isSame = (one) => one !== trunk && one.fork === fork && one.words && words.startsWith(one.words.replace(/…$/, ""));
    trunk.words = all.find(isSame)?.words ?? words;
  }
  const names = new Map();
  let left = MOST_READ;
  for (const group of groupedBy("fork", all)) {
    differingWords(group.map(({ words }) => words)).forEach((name, index) => names.set(group[index].id, { name }));
    for (const alike of groupedBy("words", group)) {
      if (alike.length < 2 || alike.length > left) continue;
      left -= alike.length;
      const turns = await Promise.all(alike.map((one) => one.turn ?? readFirstTurn(one)));
      const answers = differingWords(turns.map((turn) => (turn ? oneLine(answerText(turn)).slice(0, 400) : "")));
      alike.forEach(({ id, words }, index) => answers[index] && names.set(id, { name: answers[index], question: words }));
    }
  }
  return names;
}

const words = (branch) => `${branch.turns} ${branch.turns === 1 ? "turn" : "turns"}, ${date.format(new Date(branch.updated_at * 1000))}${["queued", "in_progress", "failed"].includes(branch.status) ? `, ${branch.status.replace("_", " ")}` : ""}`;

function go(branch) {
  closeDialog();
  navigate(`/r/${branch.response_id}`);
}

/** Some rows that stand together. `labels`: the name and the question of each, as one text, which is equal while they are. */
const Rows = memo(({ branches, labels, current, first }) => {
  const texts = labels.split("\0");
  return branches.map((branch, index) => html`<li key=${branch.response_id}>
    <button type="button" data-first=${branch === first || null} class=${branch.response_id === current ? "branch current" : "branch"} aria-current=${branch.response_id === current ? "true" : undefined} onClick=${() => go(branch)}>
      <span class="option-title">${texts[2 * index]}</span>
      <span class="excerpt">${words(branch)}${texts[2 * index + 1]}</span>
    </button></li>`);
});

const groupsOf = (rows) => Array.from({ length: Math.ceil(rows.length / STEP) }, (_, index) => rows.slice(index * STEP, (index + 1) * STEP));

/** The rows, first those around the one that is shown in the chat; room is kept for the others until they are drawn. */
function Branches({ rows, names, current }) {
  const groups = useMemo(() => groupsOf(rows), [rows]);
  const first = useMemo(() => rows.find((one) => one.response_id === current) ?? rows[0], [rows]);
  const at = groups.findIndex((one) => one.includes(first));
  const [[begin, end], setDrawn] = useState([at - 1, at + 2]);
  const isWhole = begin <= 0 && end >= groups.length;
  // After these have been seen.
  useEffect(() => { if (!isWhole) setDrawn([begin - 3, end + 3]); }, [begin, end]);
  const labelsOf = (branches) => branches.flatMap((one) => {
    const { name, question } = names.get(one.response_id) ?? {};
    return [name || one.opening || "Without words", question ? `: ${question}` : ""];
  }).join("\0");
  const room = (count, key) => count > 0 && html`<li key=${key} aria-hidden="true" style=${{ height: `${count * ROW}px` }}></li>`;
  return html`<ol class="map" aria-label="Branches" aria-busy=${!isWhole}>
    ${room(begin * STEP, "above")}
    ${groups.map((branches, index) => index >= begin && index < end && html`<${Rows} key=${index} branches=${branches} labels=${labelsOf(branches)} current=${current} first=${first} />`)}
    ${room(rows.length - end * STEP, "below")}
  </ol>`;
}

export default function BranchMap({ chat }) {
  const [{ branches, more }, setFound] = useState({ branches: null, more: false });
  const [error, setError] = useState(null);
  // Before the frame is seen, not after it.
  useLayoutEffect(() => {
    let left = false;
    api(query(`/v1/chats/${chat.id}/branches`, { limit: MOST })).then(
      ({ data, has_more }) => !left && setFound({ branches: groupByFork(data), more: has_more }), setError);
    return () => { left = true; };
  }, []);
  const [names, setNames] = useState(new Map());
  useEffect(() => { if (branches) nameBranches(branches).then(setNames, () => {}); }, [branches]);
  return html`<${Dialog} title="Map of branches" wide=${true}>
    ${error && html`<p class="failure">${error.message}</p>`}
    ${branches?.length > 0 && html`<p class="branch root"><span class="option-title">${chat.title || "Untitled"}</span></p>
    <${Branches} rows=${branches} names=${names} current=${state.conversation?.head} />`}
    <p class="hint" role="status">${branches === null ? "…" : `${branches.length}${more ? " or more" : ""} ${branches.length === 1 ? "branch" : "branches"}`}</p>
    <${FoldedPrograms} actions=${[{ name: "List the branches", path: `/v1/chats/${chat.id}/branches`, terminal: `antiphon show --tree ${chat.head}` }]} />
  <//>`;
}
