/** Work queue: what elements are still to become (formulas, coloured code), done in slices of a few
 * milliseconds, so that no long answer holds up a frame or a key. What is near the view comes first. */

const SLICE = 4; // milliseconds of one task

const waiting = new Map(); // element -> what to do with it
const near = new Set(); // those of them that are near the view
const viewport = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && waiting.has(target)) near.add(target);
    else near.delete(target);
  }
}, { rootMargin: "400px" });

let left = SLICE; // of the task that runs
let isBegun = false; // whether a microtask will look at what is new
let isScheduled = false;

/** Runs `work` for an element, unless that has left the page meanwhile: at once while the task has time,
 * so that what streams is never seen unfinished, otherwise in a later task. */
export function enqueue(element, work) {
  waiting.set(element, work);
  if (isBegun) return;
  isBegun = true;
  queueMicrotask(() => {
    isBegun = false;
    const others = new Set(waiting.keys());
    runSlice();
    for (const one of others) if (waiting.has(one)) viewport.observe(one);
  });
}

/** Does at once all that waits within an element: before it is searched or printed. */
export function finishWork(within) {
  for (let found; (found = [...waiting.keys()].filter((one) => within.contains(one))).length; )
    for (const one of found) take(one)();
}

addEventListener("beforeprint", () => finishWork(document.body));

function take(element) {
  const work = waiting.get(element);
  waiting.delete(element);
  near.delete(element);
  viewport.unobserve(element);
  return work;
}

function runSlice() {
  while (left > 0 && waiting.size) {
    const [element] = near.size ? near : waiting.keys();
    const work = take(element);
    if (!element.isConnected) continue;
    const begin = performance.now();
    work();
    left -= performance.now() - begin;
  }
  // Also where nothing waits any more: the next task has its time again.
  if (isScheduled || left === SLICE) return;
  isScheduled = true;
  schedule(() => {
    isScheduled = false;
    left = SLICE;
    runSlice();
  });
}

const schedule = (run) => (globalThis.scheduler?.postTask ? scheduler.postTask(run, { priority: "background" }) : setTimeout(run));
