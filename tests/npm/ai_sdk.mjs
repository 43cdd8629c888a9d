// Calls Tollgate by the AI SDK, as told on standard input, and prints what came of each call, by its name.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { embed, generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { text } from "node:stream/consumers";

const { address, keys, calls } = JSON.parse(await text(process.stdin));

const providers = {
  openrouter: (apiKey) => createOpenRouter({ baseURL: `${address}/api/v1`, apiKey }),
  openai: (apiKey) => createOpenAI({ baseURL: `${address}/v1`, apiKey }),
  "openai.chat": (apiKey) => createOpenAI({ baseURL: `${address}/v1`, apiKey }).chat,
  anthropic: (apiKey) => createAnthropic({ baseURL: `${address}/v1`, apiKey }),
};

const usage = (metadata) => metadata?.openrouter?.usage;
const failure = (error) => {
  const last = error.lastError ?? error;
  const tries = error.errors?.length ?? 1;
  return { message: last.message, status: last.statusCode, code: last.data?.error?.code ?? last.code, name: error.name, tries };
};

const kinds = {
  async complete(model, asked) {
    const answer = await generateText({ model, ...asked });
    const { toolCalls, finishReason, reasoningText } = answer;
    const calls = toolCalls.map(({ toolName, input }) => ({ name: toolName, input }));
    return { text: answer.text, calls, finishReason, reasoning: reasoningText, usage: usage(answer.providerMetadata) };
  },
  async stream(model, asked) {
    const errors = [];
    const answer = streamText({ model, ...asked, onError: ({ error }) => errors.push(error) });
    const told = { text: "", calls: [] };
    for await (const part of answer.fullStream) {
      if (part.type === "text-delta") told.text += part.text;
      if (part.type === "tool-call") told.calls.push({ name: part.toolName, input: part.input });
      if (part.type === "finish") told.finishReason = part.finishReason;
    }
    if (errors.length) return { ...told, error: failure(errors[0]) };
    return { ...told, usage: usage(await answer.providerMetadata) };
  },
  async object(model, asked) {
    const { schema, ...rest } = asked;
    return { object: (await generateObject({ model, schema: jsonSchema(schema), ...rest })).object };
  },
  async embed(model, asked) {
    const answer = await embed({ model, ...asked });
    return { dimensions: answer.embedding.length, tokens: answer.usage.tokens };
  },
};

const withTools = ({ tools, ...asked }) =>
  tools
    ? { ...asked, tools: { [tools.name]: tool({ ...tools, inputSchema: jsonSchema(tools.parameters) }) } }
    : asked;

const report = {};
for (const [name, { kind, provider: named, key, model, asked }] of Object.entries(calls)) {
  const provider = providers[named ?? "openrouter"](keys[key ?? "rich"]);
  const chosen = kind === "embed" ? provider.textEmbeddingModel(model) : provider(model);
  try {
    report[name] = await kinds[kind](chosen, withTools({ maxRetries: 0, ...asked }));
  } catch (error) {
    report[name] = { error: failure(error) };
  }
}
process.stdout.write(JSON.stringify(report));
