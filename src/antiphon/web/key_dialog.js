/** Key dialog: asks for the API key when the server wants one; it lives as long as the tab. */
import { html, useState } from "./vendor/preact.js";
import { key } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";

export default function KeyDialog({ message, resolve }) {
  const [value, setValue] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (!value.trim()) return;
    key.set(value.trim());
    closeDialog();
    resolve();
  };
  // Without a key there is nothing to show, so it cannot be closed.
  return html`<${Dialog} title="Key" onClose=${null}>
    <p>This server wants an API key. <code class="plain-code">antiphon key create</code> makes one.</p>
    ${message && html`<p class="failure" role="alert">This key does not work here: it may be incomplete, revoked or another server's.</p>`}
    <form class="row" onSubmit=${submit}>
      <label class="hidden" for="api-key">API key</label>
      <input id="api-key" type="password" data-first autocomplete="off" spellcheck=${false} placeholder="API key" value=${value} onInput=${(event) => setValue(event.target.value)} />
      <button class="primary button" disabled=${!value.trim()}>Use it</button>
    </form>
    <p class="hint">It is sent in a header only, and forgotten when this tab is closed.</p>
  <//>`;
}
