// The AI SDK with its OpenAI providers, against the server at OPENAI_BASE_URL.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { run } from "./run.mjs";

const baseURL = process.env.OPENAI_BASE_URL;
const openai = createOpenAI({ baseURL, apiKey: "unused" });
const compatible = createOpenAICompatible({ name: "antiphon", baseURL });
const models = {
  responses: openai("m"),
  chat: openai.chat("m"),
  compatible: compatible("m"),
};

const TWO_ROUNDS =
  'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}\n' +
  'call get_weather {"city": "Bonn"}';
const Person = z.object({ name: z.string(), born: z.number() });
const get_weather = tool({
  description: "The weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `snow in ${city}`,
});
const tools = { get_weather };
const stopWhen = stepCountIs(6);

async function turns(model) {
  const messages = [{ role: "user", content: "I am Alice." }];
  for (const content of [TWO_ROUNDS, "Who?"]) {
    const { response } = await generateText({ model, messages, tools, stopWhen });
    messages.push(...response.messages, { role: "user", content });
  }
  return (await generateText({ model, messages, tools, stopWhen })).text;
}

async function streamed(model) {
  const result = streamText({ model, prompt: TWO_ROUNDS, tools, stopWhen });
  const parts = [];
  for await (const part of result.textStream) parts.push(part);
  return [parts.length > 1, parts.join(""), (await result.steps).length];
}

async function structured(model) {
  const prompt = 'say {"name": "Ada", "born": 1815}';
  const output = Output.object({ schema: Person });
  const whole = (await generateText({ model, prompt, output })).output;
  return [whole, await streamText({ model, prompt, output }).output];
}

const each = (program) => async () => {
  const outcomes = {};
  for (const [name, model] of Object.entries(models)) outcomes[name] = await program(model);
  return outcomes;
};

async function previous() {
  const first = await generateText({ model: models.responses, prompt: "I am Bob." });
  const previousResponseId = first.providerMetadata.openai.responseId;
  const { text } = await generateText({
    model: models.responses,
    prompt: "Who?",
    providerOptions: { openai: { previousResponseId } },
  });
  return text;
}

// Three steps: each sends the outputs of all steps before again.
async function conversation() {
  const made = await fetch(`${baseURL}/conversations`, { method: "POST", body: "{}" });
  const providerOptions = { openai: { conversation: (await made.json()).id } };
  const options = { model: models.responses, tools, stopWhen, providerOptions };
  const first = await generateText({ ...options, prompt: TWO_ROUNDS });
  return [first.text, (await generateText({ ...options, prompt: "Who?" })).text];
}

async function providerTools() {
  const patch = openai.tools.customTool({ name: "patch", description: "Patches." });
  const web_search = openai.tools.webSearch({});
  const { toolCalls } = await generateText({
    model: models.responses,
    prompt: 'call patch {"input": "*** a"}',
    tools: { patch, web_search },
  });
  return toolCalls.map(({ toolName, input }) => [toolName, input]);
}

async function images() {
  const pixel =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
  const content = [
    { type: "text", text: "Look." },
    { type: "image", image: pixel, mediaType: "image/png" },
  ];
  const ask = async (model) => (await generateText({ model, messages: [{ role: "user", content }] })).text;
  return await each(ask)();
}

await run({
  turns: each(turns),
  streamed: each(streamed),
  structured: each(structured),
  previous,
  conversation,
  providerTools,
  images,
});
