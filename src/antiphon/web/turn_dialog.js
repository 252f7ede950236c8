/** Turn dialog: links, copies, other models, replay, programs that go on from a turn, erasure. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { notify, openDialog, state } from "./core.js";
import { copyText } from "./code.js";
import { loadModels } from "./conversation.js";
import { closeDialog, Dialog } from "./dialog.js";
import { Programs } from "./programs.js";
import * as acts from "./turn_actions.js";
import { questionText } from "./turns.js";

/** What can be done with a turn, as programs do it. */
function actionsOf(turn) {
  const { id, model } = turn.response;
  const question = questionText(turn);
  const path = `/v1/responses/${id}`;
  const inTerminal = (command) => `antiphon chat --from ${id}\n${command}`;
  const start = (fields) => ({ method: "POST", path: "/v1/responses", body: { model, ...fields } });
  const tools = (turn.response.tools ?? []).filter((one) => one.type === "mcp").map(({ type, server_label }) => ({ type, server_label }));
  const decide = (item, approve) => ({
    name: `${approve ? "Approve" : "Refuse"} ${item.name}`, terminal: inTerminal("/approve"),
    ...start({ previous_response_id: id, tools, input: [{ type: "mcp_approval_response", approval_request_id: item.id, approve }] }),
  });
  const items = turn.response.output ?? [];
  const isOpen = (item) => item.type === "function_call" && !items.some((one) => one.call_id === item.call_id && one !== item);
  const open = items.filter(isOpen);
  return [
    // What a call waits for comes first.
    ...open.map((one) => ({ name: `Give the result of ${one.name}`, ...start({ previous_response_id: id, input: [{ type: "function_call_output", call_id: one.call_id, output: "…" }] }) })),
    ...(open.length ? [] : [{ name: "Go on from it", sdk: true, terminal: `antiphon chat --from ${id}`, ...start({ previous_response_id: id, input: "Go on." }) }]),
    { name: "Ask again", terminal: inTerminal(`/retry ${model}`), ...start({ sibling_of: id, input: question }) },
    { name: "Ask in other words", terminal: inTerminal(`/edit ${question.split("\n")[0]}`), ...start({ sibling_of: id, input: question }) },
    ...items.filter((one) => one.type === "mcp_approval_request").flatMap((one) => [decide(one, true), decide(one, false)]),
    { name: "Read it", path, terminal: `antiphon show ${id}` },
    { name: "Replay it", path: `${path}?stream=true`, streams: true },
    { name: "List its versions", path: `${path}/siblings`, terminal: inTerminal("/siblings") },
    { name: "Erase it", method: "DELETE", path, terminal: `antiphon delete ${id}` },
    { name: "Erase it and all that followed", method: "DELETE", path: `${path}?cascade=true`, terminal: `antiphon delete --cascade ${id}` },
  ];
}

export default function TurnDialog({ turn }) {
  const [models, setModels] = useState(state.models ?? []);
  const [erasing, setErasing] = useState(false);
  const choice = useRef();
  useEffect(() => { loadModels().then(setModels, () => {}); }, []);
  const { id } = turn.response;
  const then = (run) => () => { closeDialog(); run(); };
  const erase = (cascade) => then(() => acts.erase(turn, cascade).then(() => notify("Erased.", null, 2), (error) => notify(error.message)));
  return html`<${Dialog} title=${turn.position === undefined ? "Turn" : `Turn ${turn.position + 1}`}>
    <p class="row">
      <button type="button" class="button" data-first onClick=${(event) => copyText(acts.permalink(turn), event.currentTarget)}>Copy its link</button>
      <button type="button" class="button" onClick=${(event) => copyText(acts.turnAsMarkdown(turn), event.currentTarget)}>Copy as Markdown</button>
      <button type="button" class="button" onClick=${then(() => acts.branchFrom(turn))}>Branch from here</button>
      ${turn.siblings?.count > 1 && html`<button type="button" class="button" onClick=${() => openDialog("compare", { of: id, text: questionText(turn) })}>Versions side by side</button>`}
      <button type="button" class="button" onClick=${() => openDialog("replay", { turn })}>Replay</button>
      ${state.chat && html`<button type="button" class="button" onClick=${() => openDialog("share", { chat: state.chat, upTo: turn })}>Share up to here</button>`}
    </p>
    <form class="row" onSubmit=${(event) => { event.preventDefault(); const model = choice.current.value; closeDialog(); acts.regenerate(turn, model); }}>
      <label for="other-model">Ask again</label>
      <select id="other-model" ref=${choice}>${(models.length ? models : [turn.response.model]).map((one) => html`<option key=${one} selected=${one === turn.response.model}>${one}</option>`)}</select>
      <button class="button">Ask</button>
    </form>
    <section><h3>In other programs</h3><${Programs} actions=${actionsOf(turn)} /></section>
    <section><h3>Erase</h3>
      ${erasing
        ? html`<p>What is erased is gone from the disk too. What followed this turn can stay.</p><p class="row">
          <button type="button" class="button danger" onClick=${erase(false)}>Erase this turn</button>
          <button type="button" class="button danger" onClick=${erase(true)}>Erase it and all that followed</button>
          <button type="button" class="button" onClick=${() => setErasing(false)}>Keep it</button></p>`
        : html`<p class="row"><button type="button" class="button danger" onClick=${() => setErasing(true)}>Erase…</button></p>`}
    </section>
  <//>`;
}
