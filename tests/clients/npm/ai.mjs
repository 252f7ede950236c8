// The AI SDK with its Open Responses provider, against the server at the address that is given.

import { createOpenResponses } from "@ai-sdk/open-responses";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { run } from "./run.mjs";

const url = `${process.argv[2]}/responses`;
const model = createOpenResponses({ name: "antiphon", url })("scripted");
const Person = z.object({ name: z.string(), born: z.number() });

const weather = tool({
  description: "The weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `snow in ${city}`,
});
const looped = {
  prompt: "The weather?",
  tools: { get_weather: weather },
  stopWhen: stepCountIs(5),
};

async function generate() {
  const { text, finishReason, usage, response } = await generateText({ model, prompt: "Hi" });
  return { text, finishReason, tokens: usage.totalTokens, id: response.id };
}

async function stream() {
  const result = streamText({ model, prompt: "Hi" });
  const parts = [];
  for await (const part of result.textStream) parts.push(part);
  return { parts, finishReason: await result.finishReason };
}

// A summary is something the provider only reads from streams.
async function reasoning() {
  const result = streamText({ model, prompt: "Think!" });
  await result.consumeStream();
  return { text: await result.text, reasoningText: await result.reasoningText };
}

function told({ text, steps }) {
  const calls = steps.flatMap((step) => step.toolCalls.map((call) => call.input.city));
  return { text, calls, steps: steps.length };
}

async function tools() {
  return told(await generateText({ model, ...looped }));
}

async function streamedTools() {
  const result = streamText({ model, ...looped });
  await result.consumeStream();
  return told({ text: await result.text, steps: await result.steps });
}

async function structured() {
  const output = Output.object({ schema: Person });
  return (await generateText({ model, prompt: "Who was Ada?", output })).output;
}

async function streamedStructured() {
  const output = Output.object({ schema: Person });
  return await streamText({ model, prompt: "Who was Ada?", output }).output;
}

async function turns() {
  const messages = [{ role: "user", content: "I am Alice." }];
  const first = await generateText({ model, messages });
  messages.push(...first.response.messages, { role: "user", content: "Who?" });
  return (await generateText({ model, messages })).text;
}

// The provider has no word for it, but lets a request be changed on its way.
async function previous() {
  let last;
  const chained = createOpenResponses({
    name: "antiphon",
    url,
    fetch: (address, init) => {
      const body = { ...JSON.parse(init.body), previous_response_id: last };
      return fetch(address, { ...init, body: JSON.stringify(body) });
    },
  })("scripted");
  const first = await generateText({ model: chained, prompt: "I am Bob." });
  last = first.response.id;
  return (await generateText({ model: chained, prompt: "Who?" })).text;
}

async function failure() {
  const errors = [];
  const onError = ({ error }) => errors.push(error);
  const result = streamText({ model, prompt: "Break!", onError });
  await result.consumeStream();
  return { failed: errors.length > 0 || (await result.finishReason) === "error" };
}

await run({
  generate,
  stream,
  reasoning,
  tools,
  streamedTools,
  structured,
  streamedStructured,
  turns,
  previous,
  failure,
});
