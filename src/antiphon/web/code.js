/** Code blocks: language, copy button, and colours that are loaded when the first code is seen. */
import { enqueue } from "./work_queue.js";

const ALIASES = {
  sh: "bash", shell: "bash", zsh: "bash", console: "bash", js: "javascript", jsx: "javascript",
  ts: "typescript", tsx: "typescript", py: "python", python3: "python", rb: "ruby", rs: "rust",
  golang: "go", html: "xml", svg: "xml", yml: "yaml", toml: "ini", md: "markdown", "c++": "cpp",
  "c#": "csharp", cs: "csharp", kt: "kotlin", patch: "diff", h: "c", hpp: "cpp",
};
const LARGEST = 60_000; // characters that are coloured

/** A block of code as an element. `growing`: it has `add(text)`, `write(line)` for the line that is not complete, and
 * `finish()`. */
export function codeBlock(text, info, { growing = false } = {}) {
  const language = info.trim().split(/[\s,{]/)[0].toLowerCase().slice(0, 30);
  const block = document.createElement("div");
  block.className = "code";
  block.dir = "ltr";
  const head = block.appendChild(document.createElement("div"));
  head.className = "code-head";
  const name = head.appendChild(document.createElement("span"));
  name.textContent = language || "text";
  const button = head.appendChild(document.createElement("button"));
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", () => copyText(code.textContent, button));
  const frame = block.appendChild(document.createElement("pre"));
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const code = frame.appendChild(document.createElement("code"));
  const [lines, last] = [text, ""].map((words) => code.appendChild(document.createTextNode(words)));
  block.add = (more) => lines.appendData(more);
  // What is selected in a line that grows stays selected.
  block.write = (line) => {
    if (line.startsWith(last.data)) last.appendData(line.slice(last.length));
    else last.data = line;
  };
  block.finish = () => colour(code, language);
  if (!growing) block.finish();
  return block;
}

const labels = new WeakMap(); // button -> its own words, while it says what was done

/** Copies a text, and says so on the button; `label`: where that has its words. */
export async function copyText(text, button, label = button) {
  const before = labels.get(button) ?? label.textContent;
  labels.set(button, before);
  let words = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    words = "Not allowed";
  }
  label.textContent = words;
  setTimeout(() => {
    label.textContent = before;
    labels.delete(button);
  }, 1500);
}

let highlighter = null; // once highlight.js is loaded

async function colour(code, language) {
  const text = code.textContent;
  const name = ALIASES[language] ?? language;
  if (!name || name === "text" || text.length > LARGEST) return;
  // Where the server is away it stays as it is, and the next block asks again.
  highlighter ??= (await import("./vendor/highlight.js").catch(() => null))?.default;
  if (!highlighter?.getLanguage(name)) return;
  enqueue(code, () => {
    if (code.textContent !== text) return;
    // The tree, from which highlight.js itself would make markup.
    const tree = highlighter.highlight(text, { language: name, ignoreIllegals: true })._emitter.rootNode;
    code.replaceChildren(...tree.children.map(branch));
  });
}

function branch(node) {
  if (typeof node === "string") return node;
  if (!node.scope) return fragment(node.children);
  const made = document.createElement("span");
  made.className = node.scope.split(".").map((one, index) => (index ? `${one}_` : `hljs-${one}`)).join(" ");
  made.append(fragment(node.children));
  return made;
}

function fragment(children) {
  const made = document.createDocumentFragment();
  made.append(...children.map(branch));
  return made;
}
