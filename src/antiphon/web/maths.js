/** Maths: KaTeX, loaded when the first formula is seen. */
import katex from "./vendor/katex.js";
import { enqueue } from "./work_queue.js";

const sheet = document.createElement("link");
sheet.rel = "stylesheet";
sheet.href = new URL("./vendor/katex.css", import.meta.url).href;
document.head.append(sheet);

const MOST = 300; // formulas whose elements are remembered

/** What formulas became, the newest last: while an answer grows, its end is made again and again. */
const typeset = new Map();

/** Replaces the text of an element by the formula that it is; a wrong one stays as it is. */
export function renderMaths(into, text, display) {
  enqueue(into, () => {
    const made = typesetFormula(text, display);
    if (made) into.replaceChildren(made.cloneNode(true));
    else into.classList.add("wrong");
  });
}

/** The elements of a formula; null: it is none. */
function typesetFormula(text, display) {
  const name = `${display}${text}`;
  let made = typeset.get(name);
  typeset.delete(name);
  made ??= { element: render(text, display) };
  typeset.set(name, made);
  if (typeset.size > MOST) typeset.delete(typeset.keys().next().value);
  return made.element;
}

function render(text, display) {
  const into = document.createElement("span");
  try {
    katex.render(text, into, { displayMode: display, throwOnError: true, trust: false, strict: "ignore", maxSize: 20, maxExpand: 500 });
    return into.firstChild;
  } catch {
    return null;
  }
}
