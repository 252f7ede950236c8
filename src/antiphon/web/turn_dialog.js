/** Turn dialog: links, copies, other models, replay, programs that go on from a turn, erasure. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { notify, openDialog, state } from "./core.js";
import { copyText } from "./code.js";
import { ContinueIn } from "./continue_in.js";
import { loadModels } from "./conversation.js";
import { closeDialog, Dialog } from "./dialog.js";
import * as acts from "./turn_actions.js";
import { questionText } from "./turns.js";

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
    </p>
    <form class="row" onSubmit=${(event) => { event.preventDefault(); const model = choice.current.value; closeDialog(); acts.regenerate(turn, model); }}>
      <label for="other-model">Ask again</label>
      <select id="other-model" ref=${choice}>${(models.length ? models : [turn.response.model]).map((one) => html`<option key=${one} selected=${one === turn.response.model}>${one}</option>`)}</select>
      <button class="button">Ask</button>
    </form>
    <section><h3>Go on elsewhere</h3><${ContinueIn} id=${id} model=${turn.response.model} /></section>
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
