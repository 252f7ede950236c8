/** Maths: KaTeX, its style sheet and fonts, loaded when the first formula is seen. */
import { enqueue } from "./work_queue.js";

/** Nearly all formulas have these. One that came later would have all of them laid out again. */
const FONTS = ["1em KaTeX_Main", "italic 1em KaTeX_Math"];

let katex = null;
let loading = null; // a promise

/** What renders formulas, once it is here. The network may be away: then the next formula asks again. */
export const loadMaths = () => (loading ??= load().catch((error) => {
  loading = null;
  throw error;
}));

async function load() {
  const [module] = await Promise.all([import("./vendor/katex.js"), loadStyles()]);
  katex = module.default;
  return renderMaths;
}

async function loadStyles() {
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL("./vendor/katex.css", import.meta.url).href;
  const isLoaded = new Promise((resolve, reject) => Object.assign(sheet, { onload: resolve, onerror: reject }));
  document.head.append(sheet);
  await isLoaded.catch((error) => {
    sheet.remove();
    throw error;
  });
  // Without a font formulas can be read.
  await Promise.allSettled(FONTS.map((font) => document.fonts.load(font)));
}

const MOST = 300; // formulas whose elements are remembered

/** What formulas became, the newest last: while an answer grows, its end is made again and again. */
const typeset = new Map();

/** Replaces the text of an element by the formula that it is; a wrong one stays as it is. */
function renderMaths(into, text, display) {
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
