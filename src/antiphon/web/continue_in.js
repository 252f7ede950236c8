/** Continue in: the same turn from curl, Python, the xai-sdk and the terminal, to be copied. */
import { html, useState } from "./vendor/preact.js";
import { codeBlock } from "./code.js";
import { key } from "./core.js";

const quote = (text) => JSON.stringify(text);

/** The programs that go on from a turn. A key is never written into one. */
export function programs(id, model, origin, hasKey) {
  const authorization = hasKey ? ` \\\n  -H "Authorization: Bearer $ANTIPHON_API_KEY"` : "";
  const secret = hasKey ? `os.environ["ANTIPHON_API_KEY"]` : `"none"`;
  const { hostname, port } = new URL(origin);
  return {
    curl: ["bash", `curl ${origin}/v1/responses \\\n  -H 'Content-Type: application/json'${authorization} \\\n  -d '${JSON.stringify({ model, previous_response_id: id, input: "Go on." })}'`],
    Python: ["python", `${hasKey ? "import os\n" : ""}from openai import OpenAI\n\nclient = OpenAI(base_url=${quote(`${origin}/v1`)}, api_key=${secret})\nresponse = client.responses.create(\n    model=${quote(model)},\n    previous_response_id=${quote(id)},\n    input="Go on.",\n)\nprint(response.output_text)`],
    "xai-sdk": ["python", `${hasKey ? "import os\n" : ""}from xai_sdk import Client\nfrom xai_sdk.chat import user\n\nclient = Client(\n    api_key=${secret},\n    api_host="${hostname}:${Number(port || 80) + 1}",\n    use_insecure_channel=True,\n)\nchat = client.chat.create(model=${quote(model)}, previous_response_id=${quote(id)})\nchat.append(user("Go on."))\nprint(chat.sample().content)`],
    Terminal: ["bash", `antiphon chat --from ${id}`],
  };
}

export function ContinueIn({ id, model }) {
  const all = programs(id, model, location.origin, Boolean(key.get()));
  const [name, setName] = useState("curl");
  const [language, text] = all[name];
  return html`<div class="tabs" role="group" aria-label="Program">${Object.keys(all).map((one) => html`<button type="button" key=${one} class="tab" aria-pressed=${one === name} onClick=${() => setName(one)}>${one}</button>`)}</div>
    <div key=${name} ref=${(place) => place?.replaceChildren(codeBlock(text, language))}></div>`;
}
