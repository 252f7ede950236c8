/** Word diff: what two texts have in common, and what each has of its own. Pure. */

const MOST_WORDS = 2_000;

/** Pieces of both texts in order: ["=", words], ["-", words of the first], ["+", of the second]. */
export function diffWords(first, second) {
  const [before, after] = [first, second].map((text) => text.match(/\s*\S+/g)?.slice(0, MOST_WORDS) ?? []);
  const bare = (list) => list.map((one) => one.trim());
  const [left, right] = [bare(before), bare(after)];
  const width = right.length + 1;
  const lengths = new Uint16Array((left.length + 1) * width);
  for (let row = left.length - 1; row >= 0; row--)
    for (let column = right.length - 1; column >= 0; column--)
      lengths[row * width + column] = left[row] === right[column]
        ? lengths[(row + 1) * width + column + 1] + 1
        : Math.max(lengths[(row + 1) * width + column], lengths[row * width + column + 1]);
  const pieces = [];
  const put = (kind, word) => {
    if (pieces.at(-1)?.[0] === kind) pieces.at(-1)[1] += word;
    else pieces.push([kind, word]);
  };
  let [row, column] = [0, 0];
  while (row < left.length || column < right.length) {
    if (row < left.length && column < right.length && left[row] === right[column]) {
      put("=", after[column]);
      row++;
      column++;
    } else if (column < right.length && (row === left.length || lengths[row * width + column + 1] >= lengths[(row + 1) * width + column])) put("+", after[column++]);
    else put("-", before[row++]);
  }
  return pieces;
}
