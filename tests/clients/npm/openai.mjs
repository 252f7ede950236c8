// The official "openai" client against the server at the address that is given.

import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { ResponsesWS } from "openai/resources/responses/ws";
import { z } from "zod";

import { errorOf, run } from "./run.mjs";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none" });
const model = "scripted";
const missing = `resp_${"0".repeat(32)}`;
const parameters = { type: "object", properties: { city: { type: "string" } } };
const weather = { type: "function", name: "get_weather", parameters, strict: false };
const Person = z.object({ name: z.string(), born: z.number() });

async function gathered(items) {
  const all = [];
  for await (const item of items) all.push(item);
  return all;
}

async function create() {
  const first = await client.responses.create({ model, input: "I am Alice." });
  const second = await client.responses.create({
    model,
    input: "Who?",
    previous_response_id: first.id,
  });
  const kept = await client.responses.retrieve(second.id);
  const input = await gathered(client.responses.inputItems.list(second.id, { limit: 1 }));
  await client.responses.delete(first.id);
  return {
    texts: [first.output_text, second.output_text, kept.output_text],
    input: input.map((item) => item.content[0].text),
    gone: await errorOf(client.responses.retrieve(first.id)),
  };
}

async function stream() {
  const streamed = await client.responses.create({ model, input: "Hi", stream: true });
  const events = await gathered(streamed);
  const helper = client.responses.stream({ model, input: "Hi" });
  const deltas = [];
  helper.on("response.output_text.delta", (event) => deltas.push(event.delta));
  const final = await helper.finalResponse();
  return {
    types: events.map((event) => event.type),
    numbers: events.map((event) => event.sequence_number),
    said: deltas.join(""),
    final: final.output_text,
  };
}

async function tools() {
  const tools = [weather];
  let response = await client.responses.create({ model, input: "The weather?", tools });
  const called = [];
  for (;;) {
    const calls = response.output.filter((item) => item.type === "function_call");
    if (calls.length === 0) break;
    called.push(...calls.map((call) => JSON.parse(call.arguments).city));
    response = await client.responses.create({
      model,
      tools,
      previous_response_id: response.id,
      input: calls.map(({ call_id }) => ({
        type: "function_call_output",
        call_id,
        output: "snow",
      })),
    });
  }
  return { called, text: response.output_text };
}

async function chatTools() {
  const asked = [];
  const runner = client.chat.completions.runTools({
    model,
    messages: [{ role: "user", content: "The weather?" }],
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          parameters,
          parse: JSON.parse,
          function: ({ city }) => {
            asked.push(city);
            return "snow";
          },
        },
      },
    ],
  });
  return { called: asked, text: await runner.finalContent() };
}

async function structured() {
  const response = await client.responses.parse({
    model,
    input: "Who was Ada?",
    text: { format: zodTextFormat(Person, "person") },
  });
  return response.output_parsed;
}

async function background() {
  let response = await client.responses.create({ model, input: "Hi", background: true });
  const begun = response.status;
  while (["queued", "in_progress"].includes(response.status)) {
    response = await client.responses.retrieve(response.id);
  }
  const rest = await client.responses.retrieve(response.id, { stream: true, starting_after: 3 });
  const events = await gathered(rest);
  return {
    statuses: [begun, response.status],
    first: events[0].sequence_number,
    last: events.at(-1).type,
  };
}

async function conversations() {
  const { id } = await client.conversations.create({ metadata: { topic: "names" } });
  await client.responses.create({ model, input: "I am Bob.", conversation: id });
  const second = await client.responses.create({ model, input: "Who?", conversation: id });
  const items = await gathered(client.conversations.items.list(id, { limit: 1, order: "asc" }));
  await client.conversations.delete(id);
  return {
    text: second.output_text,
    conversation: second.conversation.id === id,
    roles: items.map((item) => item.role),
    gone: await errorOf(client.conversations.retrieve(id)),
  };
}

async function chat() {
  const messages = [{ role: "user", content: "Hi" }];
  const whole = await client.chat.completions.create({ model, messages });
  const streamed = await client.chat.completions.create({ model, messages, stream: true });
  const chunks = await gathered(streamed);
  return {
    whole: whole.choices[0].message.content,
    streamed: chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""),
  };
}

async function errors() {
  return [
    await errorOf(client.responses.create({ model, input: [] })),
    await errorOf(client.responses.create({ model: "other", input: "Hi" })),
    await errorOf(client.responses.create({ model, input: "Hi", previous_response_id: missing })),
  ];
}

function websocket() {
  return new Promise((resolve, reject) => {
    const socket = new ResponsesWS(client);
    const said = [];
    const ask = (fields) =>
      socket.send({ type: "response.create", model, store: false, ...fields });
    socket.on("error", reject);
    socket.on("response.completed", ({ response }) => {
      said.push(response.output[0].content[0].text);
      if (said.length === 2) {
        socket.close();
        resolve(said);
      } else {
        ask({ input: "Who?", previous_response_id: response.id });
      }
    });
    ask({ input: "I am Carol." });
  });
}

await run({
  create,
  stream,
  tools,
  chatTools,
  structured,
  background,
  conversations,
  chat,
  errors,
  websocket,
});
