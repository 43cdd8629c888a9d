/** What is sent and what came back, in one conversation. */
import type { Problem } from "../parts/api";

export type Mode = "chat" | "completion" | "embedding";

export interface Figures {
  streamed: boolean;
  /** Of a plain answer: until all of it was there. */
  firstTokenMs: number | null;
  seconds: number;
  promptTokens: number | null;
  completionTokens: number | null;
  cachedTokens: number;
  /** Integer nanos as a string, since JSON has no BigInt. */
  chargeNanos: string | null;
  balanceNanos: string | null;
  requestId: string | null;
  replayed: boolean;
  stopped: boolean;
}

export interface Turn {
  role: "user" | "assistant";
  text: string;
  images?: string[];
  reasoning?: string;
  model?: string;
  figures?: Figures;
  problem?: Problem;
}

export interface Parameters {
  temperature: string;
  top_p: string;
  max_tokens: string;
  frequency_penalty: string;
  presence_penalty: string;
  seed: string;
  stop: string;
}

export const NO_PARAMETERS: Parameters = {
  temperature: "",
  top_p: "",
  max_tokens: "",
  frequency_penalty: "",
  presence_penalty: "",
  seed: "",
  stop: "",
};

export interface Draft {
  mode: Mode;
  model: string;
  system: string;
  parameters: Parameters;
  stream: boolean;
}

export const PATHS: Record<Mode, string> = {
  chat: "v1/chat/completions",
  completion: "v1/completions",
  embedding: "v1/embeddings",
};

/** The body of a request for the next answer to these turns. */
export function bodyOf(draft: Draft, turns: Turn[]): Record<string, unknown> {
  const last = turns.at(-1)?.text ?? "";
  if (draft.mode === "embedding") return { model: draft.model, input: last };
  const asked = draft.mode === "chat" ? { messages: messages(draft.system, turns) } : { prompt: last };
  return { model: draft.model, ...asked, ...chosen(draft.parameters), ...(draft.stream ? { stream: true } : {}) };
}

function messages(system: string, turns: Turn[]) {
  const said = turns.filter((turn) => turn.text || turn.images?.length);
  return [...(system.trim() ? [{ role: "system", content: system }] : []), ...said.map(message)];
}

function message({ role, text, images = [] }: Turn) {
  const pictures = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role, content: pictures.length ? [{ type: "text", text }, ...pictures] : text };
}

function chosen({ stop, ...numbers }: Parameters) {
  const set = Object.entries(numbers).filter(([, value]) => value.trim() !== "");
  const stops = stop.split("\n").filter(Boolean);
  return {
    ...Object.fromEntries(set.map(([name, value]) => [name, Number(value)])),
    ...(stops.length ? { stop: stops } : {}),
  };
}
