/** Branch map: every branch of a chat below the chat, each named by the first words that others do not have. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, navigate, query, state, turnsPath } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";
import { answerText, questionText } from "./turns.js";

const MOST = 1000;
const MOST_READ = 60; // turns whose answers are read for the names
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

/** The line on the left: down from the chat, and off to a branch. */
function Guides({ isRoot = false, isLast = false }) {
  if (isRoot) return html`<svg class="guides" width="20" height="52" viewBox="0 0 20 52" aria-hidden="true"><path d="M10 26V52" /><circle cx="10" cy="26" r="5" /></svg>`;
  return html`<svg class="guides" width="40" height="52" viewBox="0 0 40 52" aria-hidden="true">
    <path d=${`M10 0V${isLast ? 18 : 52}M10 18q0 8 8 8h12`} /><circle cx="30" cy="26" r="5" /></svg>`;
}

export default function BranchMap({ chat }) {
  const [{ branches, more }, setFound] = useState({ branches: null, more: false });
  const [error, setError] = useState(null);
  useEffect(() => {
    let left = false;
    api(query(`/v1/chats/${chat.id}/branches`, { limit: MOST })).then(
      ({ data, has_more }) => !left && setFound({ branches: data, more: has_more }), setError);
    return () => { left = true; };
  }, []);
  const [names, setNames] = useState(new Map());
  useEffect(() => { if (branches) nameBranches(branches).then(setNames, () => {}); }, [branches]);
  const shown = groupByFork(branches ?? []);
  const inView = shown.findIndex((one) => one.response_id === state.conversation?.head);
  const first = Math.max(0, inView);
  const nameOf = (branch) => names.get(branch.response_id)?.name || branch.opening || "Without words";
  const questionOf = (branch) => names.get(branch.response_id)?.question;
  const go = (branch) => {
    closeDialog();
    navigate(`/r/${branch.response_id}`);
  };
  return html`<${Dialog} title="Map of branches" wide=${true}>
    ${error && html`<p class="failure">${error.message}</p>`}
    ${shown.length > 0 && html`<p class="branch root"><${Guides} isRoot=${true} /><span class="option-title">${chat.title || "Untitled"}</span></p>`}
    <ol class="map" aria-label="Branches">${shown.map((branch, index) => html`<li key=${branch.response_id}>
      <button type="button" data-first=${index === first || null} class=${branch.response_id === state.conversation?.head ? "branch current" : "branch"} aria-current=${branch.response_id === state.conversation?.head ? "true" : undefined} onClick=${() => go(branch)}>
        <${Guides} isLast=${index === shown.length - 1} />
        <span><span class="option-title">${nameOf(branch)}</span>
        <span class="excerpt">${branch.turns} ${branch.turns === 1 ? "turn" : "turns"}, ${date.format(new Date(branch.updated_at * 1000))}${["queued", "in_progress", "failed"].includes(branch.status) ? `, ${branch.status.replace("_", " ")}` : ""}${questionOf(branch) ? `: ${questionOf(branch)}` : ""}</span></span>
      </button></li>`)}</ol>
    <p class="hint" role="status">${branches === null ? "…" : `${branches.length}${more ? " or more" : ""} ${branches.length === 1 ? "branch" : "branches"}`}</p>
    <${FoldedPrograms} actions=${[{ name: "List the branches", path: `/v1/chats/${chat.id}/branches`, terminal: `antiphon show --tree ${chat.head}` }]} />
  <//>`;
}
