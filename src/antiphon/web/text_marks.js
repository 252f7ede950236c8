/** Text marks: words that were searched for, shown where they stand, without changing elements. */

import { finishWork } from "./work_queue.js";

const NAME = "found";

/** Marks words below an element, and scrolls to the first of them; the element that it stands in. */
export function markWords(within, words, scroller) {
  const wanted = words.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);
  if (!wanted.length) return null;
  finishWork(within);
  const ranges = [];
  const walker = document.createTreeWalker(within, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const text = node.data.toLowerCase();
    if (text.length !== node.data.length) continue;
    for (const word of wanted) {
      for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, at + word.length);
        ranges.push(range);
        if (ranges.length > 500) break;
      }
    }
  }
  if ("highlights" in CSS) CSS.highlights.set(NAME, new Highlight(...ranges));
  const first = ranges[0]?.startContainer.parentElement;
  for (let fold = first?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  if (!ranges.length) return null;
  const box = ranges[0].getBoundingClientRect();
  const frame = scroller.getBoundingClientRect();
  if (box.top < frame.top || box.bottom > frame.bottom) scroller.scrollTop += box.top - frame.top - frame.height / 3;
  return first;
}
