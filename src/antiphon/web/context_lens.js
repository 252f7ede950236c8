/** Context lens: what the model was sent for a turn, and which turns of the branch it was not. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, state } from "./core.js";
import { Dialog } from "./dialog.js";
import { formatCost, pretty, questionText } from "./turns.js";

const number = new Intl.NumberFormat();

function contentText(content) {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => part.text ?? (part.type?.includes("image") ? "[picture]" : JSON.stringify(part))).join("\n");
}

function Sent({ message }) {
  const text = contentText(message.content);
  return html`<li class=${`sent ${message.role}`}><h3>${message.role}${message.tool_call_id ? ` for ${message.tool_call_id}` : ""}</h3>
    ${text && html`<p class="plain" tabindex="0">${text}</p>`}
    ${message.tool_calls?.map((call) => html`<pre class="data" tabindex="0">${call.function?.name ?? call.name} ${pretty(call.function?.arguments ?? "")}</pre>`)}</li>`;
}

/** How many of the branch's oldest turns are not among the messages. */
function countLeftOut(messages, turn) {
  const asked = new Set(messages.filter((one) => one.role === "user").map((one) => contentText(one.content)));
  const before = state.conversation.turns.filter((one) => one.position <= turn.position);
  const first = before.find((one) => asked.has(questionText(one)));
  return first ? first.position : 0;
}

export default function ContextLens({ turn }) {
  const [context, setContext] = useState(null);
  const [error, setError] = useState(null);
  const [sums, setSums] = useState(null);
  const { response } = turn;
  useEffect(() => {
    api(`/v1/responses/${response.id}/context`).then(setContext, setError);
    api(`/v1/responses/${response.id}/usage`).then(setSums, () => {});
  }, []);
  const messages = context?.messages ?? [];
  const leftOut = context ? countLeftOut(messages, turn) : 0;
  const greyed = state.conversation.turns.filter((one) => one.position < leftOut).slice(-12);
  const row = (name, one) => one && html`<tr><th scope="row">${name}</th><td>${number.format(one.input_tokens)}</td><td>${number.format(one.input_tokens_details?.cached_tokens ?? one.cached_tokens ?? 0)}</td><td>${number.format(one.output_tokens)}</td><td>${formatCost(one.cost) || "–"}</td></tr>`;
  return html`<${Dialog} title="What the model saw" wide=${true}>
    ${error && html`<p class="failure">${error.message}</p>`}
    <div class="table" tabindex="0" role="region" aria-label="Tokens"><table class="numbers"><thead><tr><th scope="col"><span class="hidden">Of</span></th><th scope="col">Tokens in</th><th scope="col">cached</th><th scope="col">out</th><th scope="col">Cost</th></tr></thead>
      <tbody>${row("This turn", response.usage)}${row(`All ${sums?.turns ?? ""} turns up to here`, sums?.turns > 1 ? sums.chain : null)}</tbody></table></div>
    ${response.tools?.length > 0 && html`<details class="fold"><summary><span class="fold-title">Tools</span><span class="fold-words">${response.tools.map((one) => one.name ?? one.server_label ?? one.type).join(", ")}</span></summary><div class="fold-body"><pre class="data" tabindex="0">${JSON.stringify(response.tools, null, 2)}</pre></div></details>`}
    <ol class="context">
      ${leftOut > 0 && html`<li class="left-out"><h3>Not sent: the ${leftOut === 1 ? "oldest turn" : `${number.format(leftOut)} oldest turns`}</h3>
        ${greyed.map((one) => html`<p class="plain" key=${one.response.id}>${one.position + 1}. ${questionText(one).slice(0, 160)}</p>`)}</li>`}
      ${messages.map((message, index) => html`<${Sent} key=${index} message=${message} />`)}
    </ol>
    ${context && html`<p class="hint">${number.format(messages.length)} messages, as they were sent. The same as a request: <code class="plain-code">GET /v1/responses/${response.id}/context</code></p>`}
  <//>`;
}
