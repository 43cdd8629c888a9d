// Makes each account call of OpenRouter's client, as told on standard input, and prints what came of it.
import { OpenRouter } from "@openrouter/sdk";
import { text } from "node:stream/consumers";

const { serverURL, apiKey, model, generation } = JSON.parse(await text(process.stdin));
const client = new OpenRouter({ serverURL, apiKey, retryConfig: { strategy: "none" } });
const [author, slug] = model.split("/");
const ids = ({ result }) => result.data.map(({ id }) => id);

const calls = {
  credits: async () => (await client.credits.getCredits()).data,
  key: async () => (await client.apiKeys.getCurrentKeyMetadata()).data,
  generation: async () => (await client.generations.getGeneration({ id: generation })).data,
  activity: async () => (await client.analytics.getUserActivity()).data,
  count: async () => (await client.models.count()).data,
  user: async () => ids(await client.models.listForUser({ bearer: apiKey })),
  endpoints: async () => (await client.endpoints.list({ author, slug })).data,
  providers: async () => (await client.providers.list()).data,
};

const report = {};
for (const [name, call] of Object.entries(calls)) {
  report[name] = await call().catch((error) => ({ error: String(error) }));
}
process.stdout.write(JSON.stringify(report));
