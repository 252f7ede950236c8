/** Share and export: a link to a reading copy, which expires and can be revoked, and files. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { api, follow, notify, query, request, state } from "./core.js";
import { copyText } from "./code.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";

const DAY = 86_400;
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

/** Saves an answer of the server as a file. */
export async function download(path, name) {
  const blob = await (await request(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const fileName = (title, ending) => `${(title || "chat").replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "chat"}.${ending}`;

/** The links that have been made; each can be revoked. */
export function Shares({ changed = null, onRevoke = () => {} }) {
  const [shares, setShares] = useState([]);
  const newest = useRef(null); // what an older reading brings comes too late
  const read = () => {
    const reading = api("/v1/shares?limit=100");
    newest.current = reading;
    reading.then(({ data }) => reading === newest.current && setShares(data), () => {});
  };
  useEffect(() => { read(); }, [changed]);
  const revoke = async (share) => {
    newest.current = null;
    setShares((all) => all.filter((one) => one !== share));
    await request(`/v1/shares/${share.id}`, { method: "DELETE" }).then(() => onRevoke(share), (error) => notify(error.message));
    read();
  };
  if (!shares.length) return null;
  return html`<h3>Links that work</h3><ul class="plain-list">${shares.map((one) => html`<li key=${one.id} class="row">
    <span class="grow"><a href=${`/r/${one.response_id}`} onClick=${(event) => { closeDialog(); follow(event); }}>${one.title || "Erased"}</a>, ${one.expires_at ? `until ${date.format(new Date(one.expires_at * 1000))}` : "without an end"}</span>
    <button type="button" class="button danger" onClick=${() => revoke(one)}>Revoke</button></li>`)}</ul>`;
}

/** Shares and exports `chat` up to a turn: `upTo`, or else the end of what is shown of it. */
export default function Share({ chat, upTo = null }) {
  const [days, setDays] = useState("7");
  const [share, setShare] = useState(null);
  const [error, setError] = useState(null);
  const head = upTo?.response.id ?? (state.conversation?.chatId === chat.id ? state.conversation.head : chat.head);
  const link = { response_id: head, ...(days ? { expires_in: Number(days) * DAY } : {}) };
  const isAsked = useRef(false); // a second click may come before the first is answered
  const make = async (event) => {
    event.preventDefault();
    if (isAsked.current) return;
    isAsked.current = true;
    try {
      setShare(await api("/v1/shares", { method: "POST", body: link }));
      setError(null);
    } catch (failure) {
      setError(failure);
    } finally {
      isAsked.current = false;
    }
  };
  const save = (format, ending) => download(query(`/v1/chats/${chat.id}/export`, { format, ...(format === "json" ? {} : { head }) }), fileName(chat.title, ending)).catch((failure) => notify(failure.message));
  return html`<${Dialog} title="Share and export">
    <section><h3>A reading copy</h3>
      <p>A page without scripts, which shows this branch up to ${upTo ? `turn ${upTo.position + 1}` : "its last turn"} to whoever has the link. What you erase vanishes from it too.</p>
      <form class="row" onSubmit=${make}>
        <label for="share-days">It works for</label>
        <select id="share-days" value=${days} onChange=${(event) => setDays(event.target.value)}><option value="1">a day</option><option value="7">a week</option><option value="30">30 days</option><option value="">ever</option></select>
        <button class="button primary" data-first>Make a link</button>
      </form>
      ${error && html`<p class="failure" role="alert">${error.message}</p>`}
      ${share && html`<p class="row"><input type="text" readonly aria-label="The link" value=${new URL(share.url, location.href).href} onFocus=${(event) => event.target.select()} /><button type="button" class="button" onClick=${(event) => copyText(new URL(share.url, location.href).href, event.currentTarget)}>Copy</button></p>`}
      <${Shares} changed=${share} onRevoke=${({ id }) => id === share?.id && setShare(null)} />
    </section>
    <section><h3>A file</h3><p class="row">
      <button type="button" class="button" onClick=${() => save("markdown", "md")}>Markdown</button>
      <button type="button" class="button" onClick=${() => save("html", "html")}>HTML</button>
      <button type="button" class="button" onClick=${() => save("json", "json")}>JSON, with all branches</button></p></section>
    <${FoldedPrograms} actions=${[
      { name: "Make a link", method: "POST", path: "/v1/shares", body: link, terminal: `antiphon chat --from ${head}\n/share` },
      ...(share ? [{ name: "Revoke it", method: "DELETE", path: `/v1/shares/${share.id}` }] : []),
      { name: "List the links", path: "/v1/shares" },
      ...["markdown", "html"].map((format) => ({
        name: `Export as ${format === "html" ? "HTML" : "Markdown"}`, text: true, path: query(`/v1/chats/${chat.id}/export`, { format, head }), terminal: `antiphon export ${head} --format ${format}` })),
      { name: "Export as JSON", path: `/v1/chats/${chat.id}/export`, terminal: `antiphon export ${chat.id}` },
    ]} />
  <//>`;
}
