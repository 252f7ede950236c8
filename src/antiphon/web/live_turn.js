/** Live turns: running responses, put together from their events as these arrive. */
import { api, ApiError, pause, readEvents, request } from "./core.js";

const ENDS = new Set(["completed", "failed", "incomplete", "cancelled"]);

export const isRunning = (status) => !ENDS.has(status);

/** A response and what its events have added. `watch` is called with "items" or "text". */
export class LiveTurn {
  constructor(response) {
    this.response = { ...response, output: [] };
    this.sequence = -1;
    this.error = null;
    this.watchers = new Set();
    this.firstTextAt = null;
  }

  watch(watcher) {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  get done() {
    return this.error !== null || !isRunning(this.response.status);
  }

  /** Ends it here: nobody has the rest. */
  fail(error) {
    this.error = error;
    for (const watcher of [...this.watchers]) watcher("items");
  }

  /** Takes the stored response in the place of what was seen, if it has ended. */
  adopt(response) {
    if (isRunning(response.status)) return false;
    this.response = response;
    for (const watcher of [...this.watchers]) watcher("items");
    return true;
  }

  apply(event) {
    if (event.sequence_number <= this.sequence) return;
    if (event.sequence_number !== undefined) this.sequence = event.sequence_number;
    const changed = this.#change(event);
    if (changed) for (const watcher of [...this.watchers]) watcher(changed, event.output_index);
  }

  #change(event) {
    const { output } = this.response;
    const item = output[event.output_index];
    const kind = event.type.replace("response.", "");
    switch (kind) {
      case "created": case "queued": case "in_progress":
        this.response = { ...event.response, output };
        return "items";
      case "completed": case "failed": case "incomplete": case "cancelled":
        this.response = event.response;
        return "items";
      case "error":
        this.error = new ApiError(event.message ?? event.error?.message ?? "The answer ended early.", 500, event.code);
        return "items";
      case "output_item.added": case "output_item.done":
        this.response.output = [...output];
        this.response.output[event.output_index] = event.item;
        return "items";
      case "content_part.added": case "reasoning_text_part.added":
        if (item) (item.content ??= [])[event.content_index] = { ...event.part };
        return "items";
      case "reasoning_summary_part.added":
        if (item) (item.summary ??= [])[event.summary_index] = { ...event.part };
        return "items";
      case "output_text.delta": case "refusal.delta": case "reasoning_text.delta": case "reasoning.delta":
        return this.#add(((item ?? {}).content ??= []), event.content_index, kind, event.delta);
      case "reasoning_summary_text.delta":
        return this.#add(((item ?? {}).summary ??= []), event.summary_index, kind, event.delta);
      case "function_call_arguments.delta": case "mcp_call_arguments.delta":
        if (item) item.arguments = (item.arguments ?? "") + event.delta;
        return "text";
      case "custom_tool_call_input.delta":
        if (item) item.input = (item.input ?? "") + event.delta;
        return "text";
      default:
        return null;
    }
  }

  #add(parts, index, kind, delta) {
    this.firstTextAt ??= Date.now();
    const type = { "output_text.delta": "output_text", "refusal.delta": "refusal" }[kind] ?? "summary_text";
    const part = (parts[index] ??= { type });
    const name = part.type === "refusal" ? "refusal" : "text";
    part[name] = (part[name] ?? "") + delta;
    return "text";
  }
}

/** Reads a turn's events to its end, from wherever it is, over any number of connections.
 *
 * `answer` is a stream that is open already. Raises ApiError where there is no such turn any more. */
export async function followTurn(turn, { answer = null, signal, onStalled = () => {} } = {}) {
  for (let failures = 0; !turn.done && !signal?.aborted; failures++) {
    try {
      // A turn that its server's death ended has fewer events than were seen of it: what is stored
      // is asked for first.
      if (failures && turn.adopt(await api(`/v1/responses/${turn.response.id}`, { signal }))) return;
      answer ??= await request(
        `/v1/responses/${turn.response.id}?stream=true&starting_after=${turn.sequence}`, { signal });
      onStalled(false);
      for await (const { data } of readEvents(answer)) {
        turn.apply(data);
        failures = 0;
        if (turn.done || signal?.aborted) return;
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error;
    }
    answer = null;
    onStalled(true);
    await pause(Math.min(250 * 2 ** failures, 5_000));
  }
}
