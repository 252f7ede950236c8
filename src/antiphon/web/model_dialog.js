/** Model dialog: which model answers the next turn, and the system prompt that it gets. */
import { html, useEffect, useState } from "./vendor/preact.js";
import { keepWords, openChat, save, set, settingsOf, state, useWords } from "./core.js";
import { loadModels, loadParts, nextModel } from "./conversation.js";
import { closeAfterWork, Dialog } from "./dialog.js";
import { FoldedPrograms, shellWord } from "./programs.js";

export default function ModelDialog() {
  const last = state.conversation?.turns.at(-1)?.response;
  const used = settingsOf(state.conversation)?.instructions ?? last?.instructions ?? "";
  const [chat] = useState(openChat);
  const [models, setModels] = useState(state.models);
  const [error, setError] = useState(null);
  const [model, setModel] = useState(nextModel(state.conversation) ?? "");
  const [instructions, setInstructions] = useWords(chat, "prompt", used);
  useEffect(() => { loadModels().then(setModels, setError); }, []);
  const submit = async (event) => {
    event.preventDefault();
    const { dialog } = state;
    const { change, newConversation } = await loadParts();
    const settings = { model: model || null, instructions };
    keepWords(chat, "prompt", null);
    keepWords(chat, "settings", settings);
    save("model", model || null);
    set({ model: model || null });
    if (state.conversation) change(state.conversation, { settings });
    else newConversation({ settings });
    closeAfterWork(dialog);
  };
  const send = { method: "POST", path: "/v1/responses", body: { ...(model ? { model } : {}), ...(instructions ? { instructions } : {}), input: "Hello." } };
  const isRunning = ["queued", "in_progress"].includes(last?.status) && last.id;
  const names = [...new Set([...(models ?? []), ...(model ? [model] : [])])];
  return html`<${Dialog} title="Model and system prompt">
    <form onSubmit=${submit} class="stack">
      ${error && html`<p class="failure">${error.message}</p>`}
      <fieldset class="choices"><legend>Model</legend>
        <label><input type="radio" name="model" data-first checked=${!model} onChange=${() => setModel("")} /><span>The server's default</span></label>
        ${names.map((one) => html`<label key=${one}><input type="radio" name="model" checked=${one === model} onChange=${() => setModel(one)} /><span>${one}</span></label>`)}
        ${!names.length && html`<p class="hint">${models ? "The server names no others: it takes any." : "…"}</p>`}
      </fieldset>
      <label>Another name<input type="text" placeholder="as the upstream calls it" value=${names.includes(model) ? "" : model} onInput=${(event) => setModel(event.target.value.trim())} /></label>
      <label>System prompt<textarea rows="5" value=${instructions} onInput=${({ target: { value } }) => setInstructions(value === used ? null : value)}></textarea></label>
      <p class="row"><span class="hint">${instructions === used ? "For the next turn of this chat, and those after it."
        : html`The system prompt is not in use yet. <button type="button" class="link" onClick=${() => setInstructions(null)}>Discard it</button>`}</span><button class="button primary">Use</button></p>
    </form>
    <${FoldedPrograms} actions=${[
      { name: "Send a message", sdk: Boolean(model), ...send, terminal: `antiphon chat${model ? ` --model ${shellWord(model)}` : ""}${instructions ? ` --system ${shellWord(instructions)}` : ""}` },
      { name: "Send one that is not stored", ...send, body: { ...send.body, store: false } },
      ...(isRunning ? [{ name: "Stop the answer", method: "POST", path: `/v1/responses/${last.id}/cancel` }] : []),
      { name: "List the models", path: "/v1/models", terminal: "antiphon model list" },
    ]} />
  <//>`;
}
