/** Branch map: every branch of a chat below the chat, each named by its first own words. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, navigate, query, state } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";
import { questionText } from "./turns.js";

const MOST = 1000;
const PAGE = 100;
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** All branches of a chat, by pages. */
async function readBranches(chat, onPage) {
  let branches = [];
  for (let after; branches.length < MOST; ) {
    const page = await api(query(`/v1/chats/${chat.id}/branches`, { limit: PAGE, order: "asc", after }));
    branches = [...branches, ...page.data];
    onPage(branches, page.has_more);
    if (!page.has_more) return;
    after = page.last_id ?? page.data.at(-1).response_id;
  }
}

/** Branches so that those which leave the same turn stand together, oldest fork first. Pure. */
export function groupByFork(branches) {
  const forks = new Map();
  for (const branch of branches) {
    const name = branch.forks_from ?? "";
    forks.set(name, [...(forks.get(name) ?? []), branch]);
  }
  return [...forks.values()].flat();
}

/** The first words of a branch that others leave: those behind the first fork, where it is on its own. */
async function trunkName(branches) {
  const trunk = branches.find((one) => !one.forks_from);
  const fork = branches.find((one) => one.forks_from)?.forks_from;
  if (!trunk || !fork) return null;
  const { data } = await api(query(`/v1/responses/${trunk.response_id}/turns`, { after: fork, limit: 1, images: "reference" }));
  return data[0] ? { id: trunk.response_id, words: questionText(data[0]) } : null;
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
    readBranches(chat, (found, has) => !left && setFound({ branches: found, more: has })).catch(setError);
    return () => { left = true; };
  }, []);
  const [trunk, setTrunk] = useState(null);
  useEffect(() => { if (branches && !more) trunkName(branches).then(setTrunk, () => {}); }, [branches, more]);
  const shown = groupByFork(branches ?? []);
  const inView = shown.findIndex((one) => one.response_id === state.conversation?.head);
  const first = inView < 0 && !more ? 0 : inView;
  const nameOf = (branch) => (trunk?.id === branch.response_id && trunk.words) || branch.opening || "Without words";
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
        <span class="excerpt">${branch.turns} ${branch.turns === 1 ? "turn" : "turns"}, ${date.format(new Date(branch.updated_at * 1000))}${["running", "waiting", "in_progress", "failed"].includes(branch.status) ? `, ${branch.status}` : ""}</span></span>
      </button></li>`)}</ol>
    <p class="hint" role="status">${branches === null ? "…" : `${branches.length}${more ? " or more" : ""} ${branches.length === 1 ? "branch" : "branches"}`}</p>
  <//>`;
}
