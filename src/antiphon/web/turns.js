/** Turns: what one turn of a conversation looks like: input, output, and what can be done with it. */
import { Component, html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { icon, iconButton, keepWords, memo, notify, openChat, openDialog, remarkName, request, useWords, whenSeen } from "./core.js";
import { copyText } from "./code.js";
import { MarkdownStream, renderMarkdown } from "./markdown.js";
import { isRunning } from "./live_turn.js";
import * as acts from "./turn_actions.js";

let formats = null;

/** How times and numbers are shown. The first of these takes a browser as long as some turns do. */
const loadFormats = () => (formats ??= {
  time: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" }),
  dateTime: new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }),
  number: new Intl.NumberFormat(),
});

export const formatTokens = (count) => (count < 10_000 ? loadFormats().number.format(count) : `${(count / 1000).toFixed(1)}k`);
export const formatCost = (cost) => (cost === undefined || cost === null ? "" : cost === 0 ? "0" : cost < 0.01 ? cost.toPrecision(2) : cost.toFixed(2));

export const partText = (part) => part.text ?? part.refusal ?? "";
export const itemText = (item) => typeof item.content === "string" ? item.content
  : (item.content ?? []).map(partText).join("");
export const answerText = (turn) => (turn.live?.response ?? turn.response).output
  .filter((item) => item?.type === "message").map(itemText).join("\n\n");
export const questionText = (turn) => turn.input
  .filter((item) => (item.type ?? "message") === "message" && item.role === "user").map(itemText).join("\n\n");

/** The name by which the words are kept that take a question's place. */
export const editName = ({ response }) => `edit.${response.id}`;

/** One turn. `live` is there while it runs in view; `answeredBefore`: when the one before it was answered. `editing`:
 * its question is to be edited; `hasWords`: words for that were typed before. */
export const Turn = memo(({ turn, live, answeredBefore, isLast, editing, hasWords, busy }) => {
  const { response } = turn;
  const label = turn.position === undefined ? "Turn" : `Turn ${turn.position + 1}`;
  return html`<article class="turn" data-turn=${response.id ?? turn.key} data-position=${turn.position} aria-label=${label} tabindex="-1">
    ${editing || hasWords ? html`<${Editor} turn=${turn} hasFocus=${editing} />` : html`<${Input} turn=${turn} busy=${busy} />`}
    <${Output} turn=${turn} live=${live} answeredBefore=${answeredBefore} isLast=${isLast} busy=${busy} />
  </article>`;
});

// ---- input

function Input({ turn, busy }) {
  const outputs = turn.input.filter((item) => item.type !== "message" && item.type !== undefined);
  const messages = turn.input.filter((item) => (item.type ?? "message") === "message");
  const asked = messages.findLast((item) => item.role === "user");
  return html`
    ${messages.map((item) => item.role === "user"
      ? html`<section class="question">
          <h2 class="hidden">You</h2>
          <div class="bubble">
            ${(typeof item.content === "string" ? [{ type: "input_text", text: item.content }] : item.content).map((part) =>
              html`<${InputPart} part=${part} />`)}
          </div>
          ${item === asked && turn.response.id && html`<div class="actions question-actions">
            ${iconButton("edit", "Edit and ask again", () => acts.edit(turn), { disabled: busy })}
            ${iconButton("copy", "Copy the question", (event) => copyIcon(questionText(turn), event))}
          </div>`}
        </section>`
      : html`<details class="fold"><summary>${item.role === "assistant" ? "An answer that was brought in" : "Instructions"}</summary><p class="plain">${itemText(item)}</p></details>`)}
    ${outputs.map((item) => html`<${InputItem} item=${item} />`)}`;
}

function InputPart({ part }) {
  if (part.type === "input_image") return html`<${Picture} address=${part.image_url} />`;
  if (part.type === "input_file") return html`<p class="file">${icon("attach")} ${part.filename ?? "file"}</p>`;
  return html`<p class="plain" dir="auto">${partText(part)}</p>`;
}

/** A picture: fetched with the key, which an address in a page cannot carry. */
function Picture({ address }) {
  const [source, setSource] = useState(address?.startsWith("data:") ? address : null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    if (!address?.startsWith("/v1/blobs/")) {
      if (!source) setFailed(true);
      return undefined;
    }
    let made = null;
    let left = false;
    request(address).then((answer) => answer.blob()).then((blob) => {
      if (left) return;
      made = URL.createObjectURL(blob);
      setSource(made);
    }).catch(() => setFailed(true));
    return () => {
      left = true;
      if (made) URL.revokeObjectURL(made);
    };
  }, [address]);
  if (source) return html`<img class="picture" src=${source} alt="Picture that was sent" />`;
  return html`<p class="file">${failed ? `Picture${address && !address.startsWith("/") ? ` at ${address.slice(0, 80)}` : ""}` : "Picture…"}</p>`;
}

function InputItem({ item }) {
  if (item.type === "mcp_approval_response")
    return html`<p class="decision">${icon(item.approve ? "check" : "close")} ${item.approve ? "Approved" : "Refused"}${item.reason ? `: ${item.reason}` : ""}</p>`;
  if (item.type?.endsWith("_output"))
    return html`<${Fold} title="Result" words=${firstLine(asText(item.output))}><pre class="data">${pretty(asText(item.output))}</pre><//>`;
  return html`<${Fold} title=${item.type}><pre class="data">${JSON.stringify(item, null, 2)}</pre><//>`;
}

// ---- output

class Output extends Component {
  componentDidMount() {
    this.listen();
  }
  componentDidUpdate() {
    this.listen();
  }
  componentWillUnmount() {
    this.stop?.();
  }
  listen() {
    if (this.live === this.props.live) return;
    this.stop?.();
    this.live = this.props.live;
    this.stop = this.live?.watch((what) => what === "items" && this.forceUpdate());
  }
  render({ turn, live, answeredBefore, isLast, busy }) {
    const response = live?.response ?? turn.response;
    const running = Boolean(turn.response.id ? isRunning(response.status) : !turn.error);
    const items = (response.output ?? []).filter(Boolean);
    const results = new Map(items.filter((one) => one.type.endsWith("_output")).map((one) => [one.call_id, one]));
    const shown = items.filter((one) => !(one.type.endsWith("_output") && items.some((call) => call.call_id === one.call_id && call !== one)));
    return html`<section class="answer" aria-busy=${running}>
      <h2 class="hidden">${response.model ?? "Answer"}</h2>
      ${shown.map((item) => html`<${Item} key=${item.id} item=${item} live=${running ? live : null} result=${results.get(item.call_id)} turn=${turn} isLast=${isLast} />`)}
      ${running && html`<${Waiting} turn=${turn} live=${live} quiet=${shown.length > 0} />`}
      <${Ending} turn=${turn} response=${response} />
      ${(turn.response.id || turn.siblings?.count > 1 && !turn.error) && html`<${Footer} turn=${turn} response=${response} running=${running} answeredBefore=${answeredBefore} isLast=${isLast} busy=${busy} />`}
    </section>`;
  }
}

function Waiting({ turn, live, quiet }) {
  const words = turn.stalled ? (quiet ? "The server is away. What is above may not be stored." : "Waiting for the server…") : live?.response.status === "queued" ? "In the queue…" : turn.response.id ? "Thinking…" : "Sending…";
  return html`<p class="waiting"><span class="dots" aria-hidden="true"><i></i><i></i><i></i></span><span class=${quiet && !turn.stalled ? "hidden" : ""}>${words}</span></p>`;
}

function Item({ item, live, result, turn, isLast }) {
  switch (item.type) {
    case "message":
      return html`${(typeof item.content === "string" ? [{ type: "output_text", text: item.content }] : item.content ?? []).map((part, index) => part?.type === "refusal"
        ? html`<p class="refusal plain">${part.refusal}</p>`
        : part && html`<${Markdown} key=${index} item=${item} index=${index} live=${live} text=${part.text} /><${Sources} part=${part} />`)}`;
    case "reasoning":
      return html`<${Reasoning} item=${item} live=${live} />`;
    case "mcp_approval_request":
      return html`<${Approval} item=${item} turn=${turn} isLast=${isLast} />`;
    case "function_call": case "mcp_call": case "custom_tool_call":
      return html`<${Call} item=${item} result=${result} live=${live} turn=${turn} isLast=${isLast} />`;
    case "mcp_list_tools":
      return html`<${Fold} title=${`Tools of ${item.server_label}`} words=${item.error ? asText(item.error) : (item.tools ?? []).map((one) => one.name).join(", ")}><pre class="data" tabindex="0">${JSON.stringify(item.tools ?? [], null, 2)}</pre><//>`;
    case "compaction":
      return html`<${Fold} title="Summary of what was before"><p class="plain">${item.summary ?? item.text ?? "Earlier turns were summarized."}</p><//>`;
    default:
      return html`<${Fold} title=${words(item.type)} words=${item.status ?? ""}><pre class="data">${JSON.stringify(item, null, 2)}</pre><//>`;
  }
}

const words = (name) => name.replace(/_/g, " ").replace(/^./, (one) => one.toUpperCase());

/** A text as Markdown. While it grows, its finished blocks stay as they are. */
function Markdown({ item, index, live, text }) {
  const place = useRef();
  const stream = useRef(null);
  useLayoutEffect(() => {
    if (!live) {
      // What was streamed is finished; what was not is made whole.
      if (stream.current) stream.current.finish(text ?? "");
      else renderMarkdown(text ?? "", place.current);
      stream.current = null;
      return undefined;
    }
    stream.current ??= new MarkdownStream(place.current);
    let frame = 0;
    let cost = 0;
    let next = 0;
    const draw = (now) => {
      frame = 0;
      if (now < next) {
        frame = requestAnimationFrame(draw);
        return;
      }
      const current = live.response.output.find((one) => one?.id === item.id)?.content?.[index]?.text ?? "";
      const begin = performance.now();
      stream.current?.update(current);
      // A text whose end takes long to read is drawn less often.
      cost = performance.now() - begin;
      next = now + cost * 8;
    };
    const stop = live.watch((what) => {
      if (what === "text" && !frame) frame = requestAnimationFrame(draw);
    });
    stream.current.update(text ?? "");
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, [live, live ? null : text]);
  return html`<div class="prose" ref=${place}></div>`;
}

function Sources({ part }) {
  const links = (part.annotations ?? []).filter((one) => /^https?:/.test(one.url ?? ""));
  if (!links.length) return null;
  return html`<ul class="sources" aria-label="Sources">${links.map((one) => html`<li><a href=${one.url} target="_blank" rel="noopener noreferrer">${one.title || new URL(one.url).host}</a></li>`)}</ul>`;
}

/** Something folded: a title, the first words of what is in it. */
export function Fold({ title, words: first, hasState = false, open = false, tone = "", children }) {
  return html`<details class=${`fold ${tone}`} open=${open}><summary><span class="fold-title">${title}</span>${first && html`<span class=${hasState ? "fold-words state" : "fold-words"}>${first}</span>`}</summary><div class="fold-body">${children}</div></details>`;
}

/** Draws again, once a frame, while the text of a live item grows. */
function useGrowth(live) {
  const [, draw] = useState(0);
  useEffect(() => {
    if (!live) return undefined;
    let frame = 0;
    const stop = live.watch(() => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        draw((count) => count + 1);
      });
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, [live]);
}

function Reasoning({ item, live }) {
  useGrowth(live);
  const current = live?.response.output.find((one) => one?.id === item.id) ?? item;
  const text = [...(current.summary ?? []), ...(current.content ?? [])].map((part) => part?.text ?? "").join("\n\n");
  if (!text) return null;
  return html`<${Fold} title=${current.status === "in_progress" && live ? "Thinking" : "Thoughts"} words=${lastLine(text)}><p class="plain" dir="auto">${text}</p><//>`;
}

function Call({ item, result, live, turn, isLast }) {
  useGrowth(live);
  const current = live?.response.output.find((one) => one?.id === item.id) ?? item;
  const output = result ? asText(result.output) : asText(current.output);
  const input = current.arguments ?? current.input ?? "";
  const open = !output && !current.error && !live && isLast && current.type === "function_call";
  const state = current.error ? "failed" : output ? "" : live ? "running" : open ? "waits for its result" : "";
  return html`<${Fold} tone="tool" title=${html`<code>${current.name}</code>${current.server_label && html`<span class="tag">${current.server_label}</span>`}`} words=${state || firstLine(input)} hasState=${Boolean(state)}>
    <h3>Arguments</h3><pre class="data" tabindex="0">${pretty(input)}</pre>
    ${output && html`<h3>Result</h3><pre class="data" tabindex="0">${pretty(output)}</pre>`}
    ${current.error && html`<h3>Error</h3><pre class="data" tabindex="0">${asText(current.error)}</pre>`}
  <//>
  ${open && turn.response.status === "completed" && html`<${ToolOutput} item=${current} turn=${turn} />`}`;
}

/** A call that nobody here can run: its result may be written by hand. */
function ToolOutput({ item, turn }) {
  const chat = openChat();
  const name = `result.${item.call_id}`;
  const [text, setText] = useWords(chat, name, null);
  if (text === null) return html`<p class="inline-actions of-answer"><button type="button" onClick=${() => setText("")}>Write its result</button></p>`;
  const send = async () => { if (await acts.giveOutput(turn, item, text)) keepWords(chat, name, null); };
  return html`<form class="inline-form" onSubmit=${(event) => { event.preventDefault(); send(); }}>
    <label>Result of <code>${item.name}</code><textarea rows="3" value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label>
    <button class="primary">Send the result</button></form>`;
}

function Approval({ item, turn, isLast }) {
  const [reason, setReason] = useWords(openChat(), remarkName(item));
  const [sent, setSent] = useState(false);
  const open = isLast && !sent && turn.response.id && !isRunning(turn.response.status);
  const decide = (approve) => {
    setSent(true);
    acts.decide(turn, item, approve, reason).then(() => setReason(null), (error) => { setSent(false); notify(error.message); });
  };
  const name = html`<code>${item.name}</code>${item.server_label && html` <span class="tag">${item.server_label}</span>`}`;
  const data = html`<pre class="data" tabindex="0">${pretty(item.arguments)}</pre>`;
  if (!open) return html`<${Fold} tone="tool" title=${name} words="needed an approval" hasState=${true}>${data}<//>`;
  return html`<div class="approval" role="group" aria-label="Approval">
    <p><strong>May this run?</strong> ${name}</p>
    ${data}
    <div class="decide">
      <input type="text" placeholder="Remark (optional)" aria-label="Remark" value=${reason} onInput=${(event) => setReason(event.target.value)} />
      <button type="button" class="primary" onClick=${() => decide(true)}>Approve</button>
      <button type="button" onClick=${() => decide(false)}>Refuse</button>
    </div>
  </div>`;
}

/** What the server has not taken: given back once it is no longer in view. */
function Refusal({ turn }) {
  useEffect(() => () => acts.giveBackUnlessShown(turn), []);
  // What was to be another version of a turn goes nowhere else.
  const isVersion = turn.again[1].siblingOf;
  return html`<div class="failure" role="alert"><p>${turn.error.message}</p>
    <button type="button" onClick=${() => acts.retry(turn)}>Try again</button>
    ${!isVersion && html`<button type="button" onClick=${() => acts.rewrite(turn)}>Write it again</button>`}</div>`;
}

function Ending({ turn, response }) {
  if (turn.error) return html`<${Refusal} turn=${turn} />`;
  if (turn.isLost) return html`<div class="failure" role="alert"><p><strong>Interrupted.</strong> The rest of this answer is lost, and what is above is not stored.</p></div>`;
  const interrupted = response.error?.code === "interrupted";
  if (response.status === "failed") return html`<div class="failure" role="alert">
    <p><strong>${interrupted ? "Interrupted." : "This turn failed."}</strong> ${interrupted ? `The server stopped while this was being written. ${response.output?.length ? "What was stored of it is above." : "Nothing of it was stored yet."}` : response.error?.message}</p>
    ${response.output?.length > 0 && html`<button type="button" onClick=${() => acts.goOn(turn)}>Go on from here</button>`}
    <button type="button" onClick=${() => acts.regenerate(turn)}>Ask again</button></div>`;
  if (response.status === "cancelled" || response.incomplete_details?.reason === "cancelled")
    return html`<p class="ending">Stopped. <button type="button" class="link" onClick=${() => acts.goOn(turn)}>Go on from here</button></p>`;
  if (response.incomplete_details?.reason === "queued")
    return html`<p class="ending">Not asked: it waited in a queue when this chat was exported. <button type="button" class="link" onClick=${() => acts.regenerate(turn)}>Ask now</button></p>`;
  if (response.status === "incomplete")
    return html`<p class="ending">Cut off: ${words(response.incomplete_details?.reason ?? "unknown").toLowerCase()}. <button type="button" class="link" onClick=${() => acts.goOn(turn)}>Go on from here</button></p>`;
  return null;
}

function Footer({ turn, response, running, answeredBefore, isLast, busy }) {
  const { siblings } = turn;
  const isStored = response.store !== false;
  // A turn that was queued began when the one before it had been answered.
  const seconds = response.completed_at && response.created_at ? response.completed_at - Math.max(response.created_at, answeredBefore) : 0;
  return html`<footer class=${isLast ? "turn-footer last" : "turn-footer"}>
    ${siblings?.count > 1 && html`<span class="siblings" role="group" aria-label="Other versions of this turn">
      ${iconButton("left", "Previous version", () => acts.showSibling(turn, -1), { disabled: !turn.response.id || siblings.index === 0 })}
      <span aria-label=${`Version ${siblings.index + 1} of ${siblings.count}`}>${siblings.index + 1}/${siblings.count}</span>
      ${iconButton("right", "Next version", () => acts.showSibling(turn, 1), { disabled: siblings.index === siblings.count - 1 })}
    </span>`}
    ${!running && html`<span class="actions">
      ${iconButton("copy", "Copy the answer", (event) => copyIcon(answerText(turn), event))}
      ${iconButton("redo", "Ask again", () => acts.regenerate(turn), { disabled: busy })}
      ${!isLast && iconButton("branch", "Branch from here", () => acts.branchFrom(turn))}
      ${isStored && iconButton("eye", "What the model saw", () => openDialog("context", { turn }))}
      ${isStored && iconButton("more", "More", () => openDialog("turn", { turn }), { "aria-haspopup": "dialog" })}
    </span>`}
    <${Facts} response=${response} seconds=${seconds} />
  </footer>`;
}

/** Model, time and tokens; of the first turns that a page shows, the numbers come once the turns are seen. */
function Facts({ response, seconds }) {
  const [hasFormats, setFormats] = useState(formats !== null);
  useEffect(() => {
    if (!hasFormats) whenSeen(() => setFormats(Boolean(loadFormats())));
  }, []);
  const { model, usage, created_at: begun } = response;
  const at = hasFormats && begun ? new Date(begun * 1000) : null;
  return html`<span class="facts">
    <span>${model}</span>
    ${at && html`<time datetime=${at.toISOString()} title=${formats.dateTime.format(at)}>${formats.time.format(at)}</time>`}
    ${seconds >= 1 && html`<span>${seconds} s</span>`}
    ${hasFormats && usage && html`<span title=${wordsOfUsage(usage)}>${formatTokens(usage.total_tokens)} tokens</span>`}
    ${usage?.cost !== undefined && html`<span title="Cost">${formatCost(usage.cost)}</span>`}
  </span>`;
}

const wordsOfUsage = ({ input_tokens, input_tokens_details: details, output_tokens }) => {
  const [all, cached, out] = [input_tokens, details?.cached_tokens ?? 0, output_tokens].map((one) => formats.number.format(one));
  return `${all} tokens in, of which ${cached} cached; ${out} out`;
};

/** Edits a question in place; sending it makes another version of the turn. */
function Editor({ turn, hasFocus }) {
  const [chat, name, before] = [openChat(), editName(turn), questionText(turn)];
  const [text, setText] = useWords(chat, name, before);
  const area = useRef();
  // At once, before anything can be typed or selected.
  useLayoutEffect(() => {
    if (!hasFocus) return;
    area.current.focus();
    area.current.setSelectionRange(text.length, text.length);
  }, [hasFocus]);
  const send = () => acts.sendEdited(turn, text, () => keepWords(chat, name, null));
  const cancel = () => {
    setText(null);
    acts.edit(null);
    if (text === before) return;
    notify("The edit was discarded.", { label: "Undo", run: () => { keepWords(chat, name, text); acts.edit(turn); } }, 7);
  };
  const id = `edit-${turn.response.id}`;
  return html`<form class="editor" onSubmit=${(event) => { event.preventDefault(); send(); }}>
    <label class="hidden" for=${id}>Edit the question</label>
    <textarea id=${id} ref=${area} dir="auto" rows=${Math.min(12, text.split("\n").length + 1)} value=${text}
      onInput=${({ target: { value } }) => setText(value === before ? null : value)}
      onKeyDown=${(event) => {
        if (event.key === "Escape") { event.stopPropagation(); cancel(); }
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
      }}></textarea>
    <p class="inline-actions"><span class="hint">${turn.response.store === false ? "Takes the place of this one." : "Makes a new version; this one stays."}</span>
      <button type="button" onClick=${cancel}>Cancel</button>
      <button class="primary" disabled=${!text.trim()}>Send</button></p>
  </form>`;
}

// ---- texts

export function asText(value) {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((part) => part?.text !== undefined)) return value.map((part) => part.text).join("\n");
  return JSON.stringify(value);
}

export function pretty(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? JSON.stringify(value, null, 2) : text;
  } catch {
    return text;
  }
}

const firstLine = (text) => text.trim().split("\n")[0].slice(0, 120);
const lastLine = (text) => text.trim().split("\n").at(-1).slice(-120);

function copyIcon(text, event) {
  const button = event.currentTarget;
  const label = { get textContent() { return button.getAttribute("aria-label"); }, set textContent(words) {
    button.classList.toggle("done", words === "Copied");
    button.setAttribute("aria-label", words);
  } };
  copyText(text, button, label);
}
