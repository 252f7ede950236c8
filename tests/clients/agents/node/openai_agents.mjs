// @openai/agents against the server at OPENAI_BASE_URL.

import { Agent, OpenAIConversationsSession, Runner, setOpenAIAPI, setTracingDisabled, tool } from "@openai/agents";
import { z } from "zod";

import { run } from "./run.mjs";

setTracingDisabled(true);

const TWO_ROUNDS =
  'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}\n' +
  'call get_weather {"city": "Bonn"}';
const get_weather = tool({
  name: "get_weather",
  description: "The weather in a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `snow in ${city}`,
});
const pay = tool({
  name: "pay",
  description: "Pay.",
  parameters: z.object({ amount: z.number() }),
  needsApproval: true,
  execute: async ({ amount }) => `paid ${amount}`,
});
const agent = (options = {}) =>
  new Agent({ name: "A", model: "m", instructions: "Be short.", tools: [get_weather], ...options });
const runner = new Runner();

async function previous() {
  const first = await runner.run(agent(), "I am Alice.");
  const second = await runner.run(agent(), "Who?", { previousResponseId: first.lastResponseId });
  return second.finalOutput;
}

async function session() {
  const session = new OpenAIConversationsSession();
  await runner.run(agent(), "I am Bob.", { session });
  const tools = (await runner.run(agent(), TWO_ROUNDS, { session })).finalOutput;
  return [tools, (await runner.run(agent(), "Who?", { session })).finalOutput];
}

async function streamed() {
  const result = await runner.run(agent(), TWO_ROUNDS, { stream: true });
  let text = "";
  for await (const piece of result.toTextStream()) text += piece;
  await result.completed;
  return [text, result.finalOutput];
}

async function structured() {
  const outputType = z.object({ name: z.string(), born: z.number() });
  const result = await runner.run(agent({ outputType }), 'say {"name": "Ada", "born": 1815}');
  return result.finalOutput;
}

async function handoff() {
  const other = new Agent({ name: "Other", model: "m", instructions: "You are the other." });
  const first = Agent.create({ name: "A", model: "m", handoffs: [other] });
  return (await runner.run(first, "call transfer_to_Other")).lastAgent.name;
}

async function approval() {
  const paying = agent({ tools: [pay] });
  const first = await runner.run(paying, 'call pay {"amount": 3}');
  for (const one of first.interruptions) first.state.approve(one);
  return (await runner.run(paying, first.state)).finalOutput;
}

async function chat() {
  setOpenAIAPI("chat_completions");
  const result = await new Runner().run(agent(), TWO_ROUNDS);
  return result.finalOutput;
}

await run({ previous, session, streamed, structured, handoff, approval, chat });
