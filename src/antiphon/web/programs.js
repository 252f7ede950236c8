/** Programs: what the page does, as curl, Python, the xai-sdk and the terminal do it, to be copied. */
import { html, useState } from "./vendor/preact.js";
import { codeBlock } from "./code.js";
import { key, load, save } from "./core.js";

const LANGUAGES = { curl: "bash", Python: "python", "xai-sdk": "python", Terminal: "bash" };
/** The fields of a turn that the OpenAI client does not know. */
const OWN_FIELDS = new Set(["sibling_of"]);
const WIDE = 72; // characters, from which a value has more than one line

const quote = (text) => JSON.stringify(text);
/** A word of a shell's command. Pure. */
export const shellWord = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** A value as Python writes it. Pure. */
function pythonValue(value, indent = "") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return quote(value);
  const isList = Array.isArray(value);
  const [open, close] = isList ? "[]" : "{}";
  const inner = `${indent}    `;
  const parts = (within) => Object.entries(value).map(([name, one]) => (isList ? "" : `${quote(name)}: `) + pythonValue(one, within));
  const short = `${open}${parts(indent).join(", ")}${close}`;
  return short.length <= WIDE && !short.includes("\n") ? short : `${open}\n${parts(inner).map((one) => `${inner}${one},\n`).join("")}${indent}${close}`;
}

function curl({ method = "GET", path, body, file, streams }, origin, hasKey) {
  const json = body && (JSON.stringify(body).length > WIDE ? JSON.stringify(body, null, 2) : JSON.stringify(body));
  return [
    `curl${streams ? " -N" : ""}${method === "GET" || body || file ? "" : ` -X ${method}`} ${shellWord(origin + path)}`,
    hasKey && `-H "Authorization: Bearer $ANTIPHON_API_KEY"`,
    body && "-H 'Content-Type: application/json'",
    file && `-H 'Content-Type: ${file.type}'`,
    body && `-d '${json.replaceAll("'", "'\\''")}'`,
    file && `--data-binary @${shellWord(file.name)}`,
  ].filter(Boolean).join(" \\\n  ");
}

/** What the OpenAI client calls: `client.responses.create`, or a path where it has no name for it. */
function python({ method = "GET", path, body, file, text, streams }, origin, hasKey) {
  const lines = [...(hasKey ? ["import os"] : []), "from openai import OpenAI", "",
    `client = OpenAI(base_url=${quote(`${origin}/v1`)}, api_key=${hasKey ? 'os.environ["ANTIPHON_API_KEY"]' : '"none"'})`];
  const short = path.replace(/^\/v1/, "");
  if (body && short === "/responses") {
    const fields = Object.entries(body).filter(([name]) => !OWN_FIELDS.has(name)).map(([name, value]) => `    ${name}=${pythonValue(value, "    ")},\n`);
    const own = Object.fromEntries(Object.entries(body).filter(([name]) => OWN_FIELDS.has(name)));
    if (Object.keys(own).length) fields.push(`    extra_body=${pythonValue(own, "    ")},\n`);
    return [...lines, `response = client.responses.create(\n${fields.join("")})`, "print(response.output_text)"].join("\n");
  }
  if (streams) return [...lines, `stream = client.responses.retrieve(${quote(short.split(/[/?]/)[2])}, stream=True)`, "for event in stream:", "    print(event.type)"].join("\n");
  const given = [quote(short), body && `body=${pythonValue(body)}`, file && `content=open(${quote(file.name)}, "rb").read()`,
    file && `options={"headers": {"Content-Type": ${quote(file.type)}}}`, `cast_to=${text ? "str" : "object"}`].filter(Boolean);
  const call = given.join(", ").length > WIDE ? `\n    ${given.join(",\n    ")},\n` : given.join(", ");
  return [...lines, `print(client.${method.toLowerCase()}(${call}))`].join("\n");
}

function xaiSdk({ body }, origin, hasKey) {
  const { hostname, port, protocol } = new URL(origin);
  const secret = hasKey ? `os.environ["ANTIPHON_API_KEY"]` : `"none"`;
  const previous = body.previous_response_id ? `, previous_response_id=${quote(body.previous_response_id)}` : "";
  return `${hasKey ? "import os\n" : ""}from xai_sdk import Client\nfrom xai_sdk.chat import user\n\nclient = Client(\n    api_key=${secret},\n    api_host="${hostname}:${Number(port || 80) + 1}",${protocol === "http:" ? "\n    use_insecure_channel=True," : ""}\n)\nchat = client.chat.create(model=${quote(body.model)}${previous}, store_messages=True)\nchat.append(user(${quote(body.input)}))\nprint(chat.sample().content)`;
}

/** The programs that do something: name -> text. A key is never written into one. Pure.
 *
 * An action is {name, method, path, body | file, terminal}; `sdk`: the xai-sdk can do it; `text`: the
 * answer is no JSON; `streams`: it is a stream of events. What `terminal` says in further lines is
 * typed into the chat that the first one opens. */
export function programsOf(action, origin, hasKey) {
  return {
    curl: curl(action, origin, hasKey),
    Python: python(action, origin, hasKey),
    ...(action.sdk ? { "xai-sdk": xaiSdk(action, origin, hasKey) } : {}),
    ...(action.terminal ? { Terminal: action.terminal } : {}),
  };
}

/** The actions of a dialog, each as programs do it. */
export function Programs({ actions }) {
  const [chosen, setChosen] = useState(0);
  const [name, setName] = useState(load("program") ?? "curl");
  const action = actions[chosen] ?? actions[0];
  const all = programsOf(action, location.origin, Boolean(key.get()));
  const shown = all[name] ? name : "curl";
  const choose = (one) => { setName(one); save("program", one); };
  return html`<div class="programs">
    ${actions.length > 1 && html`<label class="hidden" for="programs-action">What is done</label><select id="programs-action" value=${chosen} onChange=${(event) => setChosen(Number(event.target.value))}>${actions.map((one, index) => html`<option key=${one.name} value=${index}>${one.name}</option>`)}</select>`}
    <div class="tabs" role="group" aria-label="Program">${Object.keys(all).map((one) => html`<button type="button" key=${one} class="tab" aria-pressed=${one === shown} onClick=${() => choose(one)}>${one}</button>`)}</div>
    <div key=${all[shown]} ref=${(place) => place && !place.firstChild && place.append(codeBlock(all[shown], LANGUAGES[shown]))}></div>
  </div>`;
}

/** The same, folded, at the end of a dialog. */
export const FoldedPrograms = ({ actions }) => html`<details class="fold programs-fold"><summary><span class="fold-title">As curl, Python, terminal</span></summary><div class="fold-body"><${Programs} actions=${actions} /></div></details>`;
