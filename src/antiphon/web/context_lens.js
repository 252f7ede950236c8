/** Context lens: what the model was sent for a turn, and which turns of the branch it was not. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { api, state } from "./core.js";
import { Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";
import { formatCost, pretty, questionText } from "./turns.js";

const number = new Intl.NumberFormat();
const duration = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const MOST_GREYED = 12;

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

export default function ContextLens({ turn }) {
  const [context, setContext] = useState(null);
  const [error, setError] = useState(null);
  const [sums, setSums] = useState(null);
  const [firstWord, setFirstWord] = useState(null);
  const { response } = turn;
  useEffect(() => {
    api(`/v1/responses/${response.id}/context`).then(setContext, setError);
    api(`/v1/responses/${response.id}/usage`).then(setSums, () => {});
    api(`/v1/responses/${response.id}/rhythm`).then(({ first_word_after: seconds }) => setFirstWord(seconds), () => {});
  }, []);
  const messages = context?.messages ?? [];
  const [leftOut, summarized] = [context?.turns_left_out ?? 0, context?.turns_summarized ?? 0];
  // The newest of them, as far as they are at hand.
  const greyed = state.conversation.turns.filter((one) => one.position >= summarized && one.position < summarized + leftOut).slice(-MOST_GREYED);
  const { chat } = state;
  const row = (name, one) => one && html`<tr><th scope="row">${name}</th><td>${number.format(one.input_tokens)}</td><td>${number.format(one.input_tokens_details?.cached_tokens ?? one.cached_tokens ?? 0)}</td><td>${number.format(one.output_tokens)}</td><td>${formatCost(one.cost) || "–"}</td></tr>`;
  return html`<${Dialog} title="What the model saw" wide=${true}>
    ${error && html`<p class="failure">${error.message}</p>`}
    <div class="table" tabindex="0" role="region" aria-label="Tokens"><table class="numbers"><thead><tr><th scope="col"><span class="hidden">Of</span></th><th scope="col">Tokens in</th><th scope="col">Cached</th><th scope="col">Out</th><th scope="col">Cost</th></tr></thead>
      <tbody>${row("This turn", response.usage)}${row(`All ${sums?.turns ?? ""} turns up to here`, sums?.turns > 1 ? sums.chain : null)}${row("The whole chat", chat && (chat.branches > 1 || chat.turns > (sums?.turns ?? chat.turns)) ? chat.usage : null)}</tbody></table></div>
    ${firstWord !== null && html`<p class="hint">The first word came after ${duration.format(firstWord)} s.</p>`}
    ${response.tools?.length > 0 && html`<details class="fold"><summary><span class="fold-title">Tools</span><span class="fold-words">${response.tools.map((one) => one.name ?? one.server_label ?? one.type).join(", ")}</span></summary><div class="fold-body"><pre class="data" tabindex="0">${JSON.stringify(response.tools, null, 2)}</pre></div></details>`}
    <ol class="context">
      ${leftOut > 0 && html`<li class="left-out"><h3>Not sent: the ${leftOut === 1 ? "oldest turn" : `${number.format(leftOut)} oldest turns`}</h3>
        ${greyed.map((one) => html`<p class="plain" key=${one.response.id}>${one.position + 1}. ${questionText(one).slice(0, 160)}</p>`)}</li>`}
      ${messages.map((message, index) => html`<${Sent} key=${index} message=${message} />`)}
    </ol>
    ${context && html`<p class="hint">${number.format(messages.length)} ${messages.length === 1 ? "message, as it was" : "messages, as they were"} sent.</p>`}
    <${FoldedPrograms} actions=${[
      { name: "What the model saw", path: `/v1/responses/${response.id}/context`, terminal: `antiphon chat --from ${response.id}\n/context` },
      { name: "What it cost", path: `/v1/responses/${response.id}/usage`, terminal: `antiphon chat --from ${response.id}\n/cost` },
    ]} />
  <//>`;
}
