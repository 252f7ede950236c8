/** Maths: KaTeX, loaded when the first formula is seen. */
import katex from "./vendor/katex.js";

const sheet = document.createElement("link");
sheet.rel = "stylesheet";
sheet.href = new URL("./vendor/katex.css", import.meta.url).href;
document.head.append(sheet);

/** Replaces the text of an element by the formula that it is; a wrong one stays as it is. */
export function renderMaths(into, text, display) {
  // While an answer grows its end is made again and again: only what is shown is typeset.
  if (!into.isConnected) return;
  try {
    katex.render(text, into, { displayMode: display, throwOnError: true, trust: false, strict: "ignore", maxSize: 20, maxExpand: 500 });
  } catch {
    into.textContent = text;
    into.classList.add("wrong");
  }
}
