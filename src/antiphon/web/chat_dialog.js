/** Chat dialog: name, pin, what it holds and costs, and its end. */
import { html } from "./vendor/preact.js";
import { api, keepWords, notify, openDialog, set, state, useWords } from "./core.js";
import { eraseChat, refreshChat } from "./app.js";
import { closeAfterWork, closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";

const number = new Intl.NumberFormat();
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const at = (seconds) => date.format(new Date(seconds * 1000));

export async function changeChat(chat, changes) {
  const changed = await api(`/v1/chats/${chat.id}`, { method: "POST", body: changes });
  set({
    chats: state.chats.map((one) => (one.id === chat.id ? changed : one)),
    ...(state.chat?.id === chat.id ? { chat: changed } : {}),
  });
  // Another tab may have changed it since the server answered.
  refreshChat(chat.id);
  return changed;
}

/** What can be done with a chat, as programs do it. */
function actionsOf(chat, title) {
  const path = `/v1/chats/${chat.id}`;
  const inTerminal = (command) => `antiphon chat --from ${chat.head}\n${command}`;
  const change = (body) => ({ method: "POST", path, body });
  return [
    { name: "Read it", path, terminal: `antiphon show ${chat.head}` },
    { name: "Rename it", ...change({ title: title || chat.title || "A name" }) },
    { name: chat.pinned ? "Unpin it" : "Pin it", ...change({ pinned: !chat.pinned }), terminal: inTerminal("/pin") },
    { name: chat.permanent ? "Let it expire" : "Keep it", ...change({ permanent: !chat.permanent }), terminal: inTerminal("/keep") },
    { name: "Erase it", method: "DELETE", path, terminal: inTerminal("/erase chat") },
  ];
}

export default function ChatDialog({ chat }) {
  const [title, setTitle] = useWords(chat.id, "title", chat.title ?? "");
  const change = async (changes, words) => {
    const { dialog } = state;
    try {
      await changeChat(chat, changes);
      if ("title" in changes) keepWords(chat.id, "title", null);
      notify(words, null, 2);
      closeAfterWork(dialog);
    } catch (error) {
      notify(error.message);
    }
  };
  const { usage } = chat;
  const facts = [
    ["Turns", chat.branches > 1 ? `${number.format(chat.turns)} in the newest of ${number.format(chat.branches)} branches` : number.format(chat.turns)],
    ["Begun", at(chat.created_at)],
    ["Last turn", at(chat.updated_at)],
    ["Model", chat.model],
    usage && ["Tokens", `${number.format(usage.input_tokens)} in, of which ${number.format(usage.cached_tokens)} cached; ${number.format(usage.output_tokens)} out`],
    usage?.cost !== undefined && ["Cost", usage.cost.toFixed(4)],
    chat.permanent ? ["Expires", "never"] : chat.expires_at && ["Expires", `${at(chat.expires_at)}, unless it goes on`],
    chat.conversation && ["Conversation", chat.conversation],
  ].filter(Boolean);
  return html`<${Dialog} title=${chat.title || "Untitled"}>
    <form class="row" onSubmit=${(event) => { event.preventDefault(); change({ title: title.trim() || null }, "Renamed."); }}>
      <label for="chat-title">Name</label>
      <input id="chat-title" type="text" data-first maxlength="200" value=${title} onFocus=${(event) => event.target.select()} onInput=${({ target: { value } }) => setTitle(value === (chat.title ?? "") ? null : value)} />
      <button class="button primary">Rename</button>
    </form>
    <p class="row">
      <button type="button" class="button" onClick=${() => change({ pinned: !chat.pinned }, chat.pinned ? "Unpinned." : "Pinned.")}>${chat.pinned ? "Unpin" : "Pin"}</button>
      ${(chat.expires_at || chat.permanent) && html`<button type="button" class="button" onClick=${() => change({ permanent: !chat.permanent }, chat.permanent ? "It expires again." : "It is kept: it does not expire.")}>${chat.permanent ? "Let it expire" : "Keep"}</button>`}
      <button type="button" class="button" onClick=${() => openDialog("branches", { chat })}>Map of branches</button>
      <button type="button" class="button" onClick=${() => openDialog("share", { chat })}>Share and export</button>
      <button type="button" class="button danger" onClick=${() => { closeDialog(); eraseChat(chat); }}>Erase</button>
    </p>
    <dl class="facts-list">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <${FoldedPrograms} actions=${actionsOf(chat, title)} />
  <//>`;
}
