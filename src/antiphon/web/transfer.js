/** Import and export: files of other programs in, with a report for each chat; everything out. */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { api, ApiError, follow, load, notify, pause, query, request, save } from "./core.js";
import { closeDialog, Dialog } from "./dialog.js";
import { FoldedPrograms } from "./programs.js";
import { download, Shares } from "./share.js";

const SOURCES = { chatgpt: "ChatGPT", claude: "Claude", open_webui: "Open WebUI", librechat: "LibreChat", llama_cpp: "llama.cpp", messages: "a list of messages", antiphon: "antiphon" };

const MOST_ROWS = 300;

/** The import that was begun or looked at last, by its id: it is shown again when the page has been reloaded. */
const LAST = "import";

/** Sends a file and reads the import until it has ended. */
async function importFile(file, onProgress) {
  const type = /\.zip$/i.test(file.name) ? "application/zip" : /\.(ndjson|jsonl)$/i.test(file.name) ? "application/x-ndjson" : "application/json";
  const job = await (await request("/v1/import", { method: "POST", headers: { "Content-Type": type }, body: new Blob([file], { type }) })).json();
  await followImport(job, onProgress);
}

/** Reads an import until it has ended and all of its report is here, or nobody wants to know: `onProgress` says so. */
async function followImport(begun, onProgress) {
  let job = begun;
  save(LAST, job.id);
  // The report comes by pages, those of chats that are done while others are written.
  const reports = [...job.report];
  while (job.status === "running" || job.has_more) {
    if (!onProgress({ ...job, report: [...reports] })) return;
    if (!job.has_more) await pause(300);
    job = await readJob(job.id, reports.length);
    reports.push(...job.report);
  }
  onProgress({ ...job, report: reports });
}

/** How far an import has got, as soon as a server answers: any that has the store knows it. */
async function readJob(id, after) {
  for (let failures = 0; ; failures++) {
    try {
      return await api(query(`/v1/import/${id}`, { after }));
    } catch (error) {
      if (error instanceof ApiError && error.status < 500) throw error;
    }
    await pause(Math.min(400 * 2 ** failures, 8_000));
  }
}

/** What became of an import that failed, and of its chats until then. */
function failureOf({ error, counts = {} }) {
  const became = Object.entries(counts).filter(([, count]) => count).map(([name, count]) => `${count} ${name}`);
  return (error?.message ?? "The import failed.") + (became.length ? ` Until then: ${became.join(", ")}.` : "");
}

/** What an import that ended has brought. */
function summaryOf(job) {
  const failed = job.counts?.failed ?? 0;
  const read = job.chats.done - failed;
  if (!read && failed === 1 && job.report.length === 1) return `Nothing was read: ${(job.report[0].skipped ?? []).join(", ") || "the file is damaged"}.`;
  return `${read} ${read === 1 ? "chat" : "chats"} from ${sourceOf(job)}.${failed ? ` ${failed} could not be read: see below.` : ""}`;
}

const resultOf = ({ status, skipped = [] }) => status === "failed" ? `Not read: ${skipped.join(", ") || "it is damaged"}` : status + (skipped.length ? `; left out: ${skipped.join(", ")}` : "");

function Report({ job }) {
  const { done = 0, total = null } = job.chats ?? {};
  const hasNote = (one) => one.status === "failed" || one.skipped?.length > 0;
  const shown = [...(job.report ?? []).filter(hasNote), ...(job.report ?? []).filter((one) => !hasNote(one))].slice(0, MOST_ROWS);
  return html`<section aria-label="Import">
    <p role="status">${job.status === "running" ? `${done}${total ? ` of ${total}` : ""} chats…` : job.status === "failed" ? failureOf(job) : summaryOf(job)}</p>
    ${job.status === "running" && html`<progress max="1" value=${job.progress} aria-label="Progress"></progress>`}
    ${job.skipped_files?.length > 0 && html`<p class="hint">Files without chats: ${job.skipped_files.map((one) => one.name ?? one).join(", ")}</p>`}
    ${job.report?.length > 0 && html`<div class="table report" tabindex="0" role="region" aria-label="Report"><table><thead><tr><th scope="col">Chat</th><th scope="col">Turns</th><th scope="col">Branches</th><th scope="col">Pictures</th><th scope="col">Result</th></tr></thead>
      <tbody>${shown.map((one, index) => html`<tr key=${index}><td>${one.chat_id ? html`<a href=${`/c/${one.chat_id}`} onClick=${(event) => { closeDialog(); follow(event); }}>${one.title || "Untitled"}</a>` : one.title || "Untitled"}</td><td>${one.turns}</td><td>${one.branches}</td><td>${one.images}</td>
        <td>${resultOf(one)}</td></tr>`)}</tbody></table></div>`}
    ${job.report?.length > shown.length && html`<p class="hint">${(job.report.length - shown.length).toLocaleString()} more chats went the same way; those with something to say come first.</p>`}
  </section>`;
}

const sourceOf = ({ source }) => SOURCES[source] ?? source ?? "a file";
const time = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });

/** Imports of the last day, whoever began them. */
function Imports({ jobs, onChoose }) {
  if (!jobs.length) return null;
  return html`<h3>Imports of the last day</h3><ul class="plain-list">${jobs.map((one) => html`<li key=${one.id} class="row">
    <span class="grow">${time.format(new Date(one.created_at * 1000))}: ${one.status === "running" ? "goes on" : one.status === "failed" ? "failed" : `${one.chats.done} ${one.chats.done === 1 ? "chat" : "chats"} from ${sourceOf(one)}`}${one.counts.failed ? `, ${one.counts.failed} of them failed` : ""}</span>
    <button type="button" class="button" onClick=${() => onChoose(one)}>Report</button></li>`)}</ul>`;
}

export default function Transfer({ file = null }) {
  const picker = useRef();
  const [job, setJob] = useState(null);
  const [others, setOthers] = useState([]);
  const [error, setError] = useState(null);
  const [sending, setSending] = useState(null); // the file that is on its way, or did not arrive
  // What another import says after one has been chosen is not shown.
  const chosenLast = useRef(null);
  const run = (begin) => {
    const mine = {};
    chosenLast.current = mine;
    setError(null);
    const isWanted = () => chosenLast.current === mine;
    begin((progress) => {
      if (isWanted()) { setJob(progress); setSending(null); }
      return isWanted();
    }).catch((failure) => isWanted() && setError(failure));
  };
  const take = (chosen) => { setJob(null); setSending(chosen); run((onProgress) => importFile(chosen, onProgress)); };
  const show = ({ id }) => { setSending(null); run(async (onProgress) => followImport(await readJob(id), onProgress)); };
  useEffect(() => {
    api("/v1/import").then(({ data }) => {
      setOthers(data);
      const last = data.find((one) => one.id === load(LAST)) ?? data.find((one) => one.status === "running");
      if (last && !chosenLast.current) show(last);
    }, () => {});
    // Whoever closes this does not wait for it.
    return () => { chosenLast.current = {}; };
  }, []);
  const started = useRef(false);
  if (file && !started.current) {
    started.current = true;
    take(file);
  }
  return html`<${Dialog} title="Import and export" wide=${Boolean(job?.report?.length)}>
    <section><h3>Bring chats along</h3>
      <p>From ChatGPT (the zip, or its conversations files), Claude, Open WebUI, LibreChat, llama.cpp, a list of messages, or antiphon: with all branches. What is here already is not doubled.</p>
      <div class="drop" onDragOver=${(event) => event.preventDefault()} onDrop=${(event) => { event.preventDefault(); if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); }}>
        <input type="file" class="hidden" ref=${picker} tabindex="-1" aria-label="File" accept=".zip,.json,.ndjson,.jsonl" onChange=${({ target }) => { const [chosen] = target.files; target.value = ""; if (chosen) take(chosen); }} />
        <button type="button" class="button primary" data-first disabled=${job?.status === "running" || sending && !error} onClick=${() => picker.current.click()}>Choose a file</button> <span class="hint wide-only">or drop it here</span>
      </div>
      ${sending && !error && html`<p role="status">Sending ${sending.name}…</p>`}
      ${error && html`<div class="failure" role="alert"><p>${error.message}</p>${sending && html`<button type="button" onClick=${() => take(sending)}>Try again</button>`}</div>`}
      ${job && html`<${Report} job=${job} />`}
      <${Imports} jobs=${others.filter((one) => one.id !== job?.id)} onChoose=${show} />
    </section>
    <section><h3>Take everything</h3><p class="row"><button type="button" class="button" onClick=${() => download("/v1/export", "antiphon.ndjson").catch((failure) => notify(failure.message))}>All chats as one file</button></p></section>
    <${Shares} />
    <${FoldedPrograms} actions=${[
      { name: "Import a file", method: "POST", path: "/v1/import", file: { name: "export.zip", type: "application/zip" }, terminal: "antiphon import export.zip" },
      { name: "List the imports", path: "/v1/import" },
      { name: "Export everything", path: "/v1/export", text: true, terminal: "antiphon export" },
    ]} />
  <//>`;
}
