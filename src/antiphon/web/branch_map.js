/** Branch map: every branch of a chat as a tree, each named by its first own words. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, navigate, query, state } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";

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

/** Branches as a tree: each below the one that it left. Pure. */
export function growTree(branches) {
  const nodes = branches.map((branch) => ({ branch, children: [] }));
  const byLeaf = new Map(nodes.map((node) => [node.branch.response_id, node]));
  const byParent = new Map();
  for (const node of nodes) if (node.branch.branch) byParent.set(node.branch.branch, node);
  const roots = [];
  for (const node of nodes) {
    const parent = byLeaf.get(node.branch.parent) ?? byParent.get(node.branch.parent);
    (parent && parent !== node ? parent.children : roots).push(node);
  }
  return roots;
}

/** Lines of a tree: depth, and whether a line goes on at each depth. Pure. */
export function flatten(nodes, guides = []) {
  return nodes.flatMap((node, index) => {
    const isLast = index === nodes.length - 1;
    return [{ branch: node.branch, guides, isLast }, ...flatten(node.children, [...guides, !isLast])];
  });
}

function Guides({ guides, isLast, isRoot }) {
  const width = (guides.length + 1) * 20;
  return html`<svg class="guides" width=${width} height="52" viewBox=${`0 0 ${width} 52`} aria-hidden="true">
    ${guides.map((goesOn, index) => goesOn && html`<path d=${`M${index * 20 + 10} 0V52`} />`)}
    ${!isRoot && html`<path d=${`M${(guides.length - 1) * 20 + 10} 0V${isLast ? 18 : 52}M${(guides.length - 1) * 20 + 10} 18q0 8 8 8h12`} />`}
    <circle cx=${guides.length * 20 + 10} cy="26" r="5" />
  </svg>`;
}

export default function BranchMap({ chat }) {
  const [{ branches, more }, setFound] = useState({ branches: null, more: false });
  const [error, setError] = useState(null);
  useEffect(() => {
    let left = false;
    readBranches(chat, (found, has) => !left && setFound({ branches: found, more: has })).catch(setError);
    return () => { left = true; };
  }, []);
  // All begin with the same first turn, or with versions of it: the chat itself.
  const lines = branches?.length ? flatten([{ branch: null, children: growTree(branches) }]) : [];
  const go = (branch) => {
    closeDialog();
    navigate(`/r/${branch.response_id}`);
  };
  return html`<${Dialog} title="Map of branches" wide=${true}>
    ${error && html`<p class="failure">${error.message}</p>`}
    <ol class="map" aria-label="Branches">${lines.map(({ branch, guides, isLast }, index) => !branch ? html`<li key="root"><p class="branch"><${Guides} guides=${[]} isLast=${true} isRoot=${true} /><span class="option-title">${chat.title || "Untitled"}</span></p></li>` : html`<li key=${branch.response_id}>
      <button type="button" data-first=${index === 1} class=${branch.response_id === state.conversation?.head ? "branch current" : "branch"} aria-current=${branch.response_id === state.conversation?.head ? "true" : undefined} onClick=${() => go(branch)}>
        <${Guides} guides=${guides} isLast=${isLast} isRoot=${guides.length === 0} />
        <span><span class="option-title">${branch.opening || "Without words"}</span>
        <span class="excerpt">${branch.turns} ${branch.turns === 1 ? "turn" : "turns"}, ${date.format(new Date(branch.updated_at * 1000))}${branch.status !== "idle" ? `, ${branch.status}` : ""}</span></span>
      </button></li>`)}</ol>
    <p class="hint" role="status">${branches === null ? "…" : `${branches.length}${more ? " or more" : ""} ${branches.length === 1 ? "branch" : "branches"}`}</p>
  <//>`;
}
