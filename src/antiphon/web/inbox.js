/** Inbox: every call that waits for an approval, over all chats. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, decisionKey, follow, isDecided, notify, onFeed, remarkName, request, useStore, useWords } from "./core.js";
import { dropApproval, readApprovals } from "./app.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";

const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** What decides on a call. */
const decision = ({ id, response_id, server_label }, approve, more = {}) => ({
  previous_response_id: response_id, tools: [{ type: "mcp", server_label }],
  input: [{ type: "mcp_approval_response", approval_request_id: id, approve, ...more }],
});

async function decide(entry, approve, reason) {
  const { model, tools } = await api(`/v1/responses/${entry.response_id}`);
  const body = { ...decision(entry, approve, reason ? { reason } : {}), model, tools: tools?.filter((one) => one.type === "mcp") ?? [], background: true };
  await request("/v1/responses", { method: "POST", headers: { "Idempotency-Key": decisionKey(entry.id) }, body });
}

/** What the first of the calls that wait needs, as programs do it. */
const actionsOf = (entries) => [
  { name: "List what waits", path: "/v1/approvals", terminal: "antiphon approvals" },
  ...(entries ?? []).filter((one) => one.server_label).slice(0, 1).flatMap((one) => [true, false].map((approve) => ({
    name: `${approve ? "Approve" : "Refuse"} ${one.name}`, method: "POST", path: "/v1/responses", body: decision(one, approve), terminal: `antiphon chat --from ${one.response_id}\n/approve` }))),
];

function Entry({ entry, onDecided }) {
  // As in the chat: what was typed there is here too.
  const [reason, setReason] = useWords(entry.chat_id, remarkName(entry));
  const [state, setState] = useState({});
  const act = async (approve) => {
    setState({ busy: true });
    try {
      await decide(entry, approve, reason);
      setReason(null);
      onDecided(entry);
    } catch (error) {
      if (!isDecided(error)) {
        setState({ error });
        return;
      }
      notify("Somebody has decided on this call already.");
      onDecided(entry);
    }
  };
  return html`<li class="approval">
    <p><code>${entry.name}</code>${entry.server_label && html` <span class="tag">${entry.server_label}</span>`}
      in <a href=${`/r/${entry.response_id}`} onClick=${(event) => { closeDialog(); follow(event); }}>${entry.title || "an untitled chat"}</a>${", "}<time>${date.format(new Date(entry.created_at * 1000))}</time></p>
    <pre class="data" tabindex="0">${pretty(entry.arguments)}</pre>
    ${state.error && html`<p class="failure" role="alert">${state.error.message}</p>`}
    ${entry.server_label ? html`<div class="decide">
      <input type="text" placeholder="Remark (optional)" aria-label=${`Remark on ${entry.name}`} value=${reason} onInput=${(event) => setReason(event.target.value)} />
      <button type="button" class="primary" disabled=${state.busy} onClick=${() => act(true)}>Approve</button>
      <button type="button" disabled=${state.busy} onClick=${() => act(false)}>Refuse</button>
    </div>` : html`<p class="hint">Only the program that has this tool can run it: decide there.</p>`}</li>`;
}

export default function Inbox() {
  const { approvals: entries } = useStore("approvals");
  const [error, setError] = useState(null);
  const read = () => readApprovals().then(() => setError(null), setError);
  useEffect(() => {
    read();
    return onFeed((event) => /^turn\.|erased/.test(event.type) && read());
  }, []);
  return html`<${Dialog} title="Approvals">
    ${error && html`<p class="failure" role="alert">${error.message}</p>`}
    ${entries === null ? !error && html`<p class="hint">…</p>`
      : entries.length ? html`<ul class="plain-list">${entries.map((entry) => html`<${Entry} key=${entry.id} entry=${entry} onDecided=${({ id }) => dropApproval(id)} />`)}</ul>`
      : html`<p class="hint">Nothing waits. A call that needs an approval stays here until somebody decides, from this page or any program.</p>`}
    <${FoldedPrograms} actions=${actionsOf(entries)} />
  <//>`;
}
