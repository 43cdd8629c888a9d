/** The request as a program would send it. The key is named, never written. */
import { base } from "./api";

export function curl(path: string, body: Record<string, unknown>): string {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return [
    `curl ${base()}/${path} \\`,
    '  -H "Authorization: Bearer $TOLLGATE_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d '${json}'${path === "v1/audio/speech" ? ` -o speech.${body.response_format}` : ""}`,
  ].join("\n");
}

/** A form with a recording. */
export const curlForm = (path: string, body: Record<string, unknown>): string =>
  [
    `curl ${base()}/${path} \\`,
    '  -H "Authorization: Bearer $TOLLGATE_API_KEY" \\',
    ...Object.entries(body).map(([name, value]) => `  -F ${name}='${String(value).replaceAll("'", "'\\''")}' \\`),
    "  -F file=@recording.wav",
  ].join("\n");

const METHODS: Record<string, string> = {
  "v1/chat/completions": "chat.completions.create",
  "v1/completions": "completions.create",
  "v1/embeddings": "embeddings.create",
  "v1/images/generations": "images.generate",
  "v1/audio/speech": "audio.speech.create",
  "v1/audio/transcriptions": "audio.transcriptions.create",
};
const ARGUMENTS: Record<string, string[]> = { "v1/audio/transcriptions": ['    file=open("recording.wav", "rb"),'] };
const SHOWN: Record<string, string> = {
  "v1/chat/completions": "answer.choices[0].message.content",
  "v1/completions": "answer.choices[0].text",
  "v1/embeddings": "answer.data[0].embedding",
  "v1/images/generations": "answer.data[0].b64_json",
  "v1/audio/transcriptions": "answer.text",
};

export function python(path: string, body: Record<string, unknown>): string {
  const options = Object.entries(body).map(([name, value]) => `    ${name}=${literal(value)},`);
  const plain = SHOWN[path] ? `print(${SHOWN[path]})` : `answer.write_to_file("speech.${body.response_format}")`;
  const shown = body.stream ? ["for chunk in answer:", "    print(chunk)"] : [plain];
  return [
    "import os",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${base()}/v1", api_key=os.environ["TOLLGATE_API_KEY"])`,
    `answer = client.${METHODS[path]}(`,
    ...options,
    ...(ARGUMENTS[path] ?? []),
    ")",
    ...shown,
  ].join("\n");
}

export function javascript(path: string, body: Record<string, unknown>): string {
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: "${base()}/v1", apiKey: process.env.TOLLGATE_API_KEY });`,
    `const answer = await client.${METHODS[path]}(${JSON.stringify(body, null, 2)});`,
    `console.log(${SHOWN[path]});`,
  ].join("\n");
}

function literal(value: unknown): string {
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, inner]) => `${JSON.stringify(name)}: ${literal(inner)}`)
    .join(", ")}}`;
}
