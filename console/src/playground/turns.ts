/** What is sent and what came back, in one conversation. */
import type { Problem } from "../parts/api";

export type Mode = "chat" | "completion" | "embedding" | "image" | "speech" | "transcription";

export interface Figures {
  streamed: boolean;
  /** Of a plain answer: until all of it was there. */
  firstTokenMs: number | null;
  seconds: number;
  promptTokens: number | null;
  completionTokens: number | null;
  cachedTokens: number;
  /** How long a recording was, in seconds. */
  heardSeconds: number | null;
  /** Integer nanos as a string, since JSON has no BigInt. */
  chargeNanos: string | null;
  balanceNanos: string | null;
  requestId: string | null;
  /** The id of the request in the usage. */
  usageId: string | null;
  replayed: boolean;
  /** What the completion cache did: hit, miss or bypass; null if it was not asked for. */
  cache: string | null;
  stopped: boolean;
}

export interface Turn {
  role: "user" | "assistant";
  text: string;
  /** Those sent with a message, or made. */
  images?: string[];
  /** A recording that was sent. */
  file?: File;
  /** Speech that was made, as a data URL. */
  sound?: string;
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
  size: string;
  n: string;
  voice: string;
  format: string;
  language: string;
}

export const NO_PARAMETERS: Parameters = {
  temperature: "",
  top_p: "",
  max_tokens: "",
  frequency_penalty: "",
  presence_penalty: "",
  seed: "",
  stop: "",
  size: "",
  n: "",
  voice: "alloy",
  format: "mp3",
  language: "",
};

export interface Draft {
  mode: Mode;
  model: string;
  system: string;
  parameters: Parameters;
  stream: boolean;
  cache: boolean;
}

export const PATHS: Record<Mode, string> = {
  chat: "v1/chat/completions",
  completion: "v1/completions",
  embedding: "v1/embeddings",
  image: "v1/images/generations",
  speech: "v1/audio/speech",
  transcription: "v1/audio/transcriptions",
};

/** Whose answers are text that may stream. */
export const isText = (mode: Mode): boolean => mode === "chat" || mode === "completion";

/** Whose answers the completion cache keeps. */
export const isCacheable = (mode: Mode): boolean => isText(mode) || mode === "embedding";

/** The body of a request for the next answer to these turns. */
export function bodyOf(draft: Draft, turns: Turn[]): Record<string, unknown> {
  const last = turns.at(-1)?.text ?? "";
  const cached = draft.cache && isCacheable(draft.mode) ? { cache: true } : {};
  if (!isText(draft.mode)) return { model: draft.model, ...ofMedia(draft, last), ...cached };
  const asked = draft.mode === "chat" ? { messages: messages(draft.system, turns) } : { prompt: last };
  const stream = draft.stream ? { stream: true } : {};
  return { model: draft.model, ...asked, ...chosen(draft.parameters), ...stream, ...cached };
}

function ofMedia({ mode, parameters: { size, n, voice, format, language } }: Draft, text: string) {
  if (mode === "image") return { prompt: text, ...(size && { size }), ...(n && { n: Number(n) }) };
  if (mode === "speech") return { input: text, voice, response_format: format };
  if (mode === "transcription") return language ? { language } : {};
  return { input: text };
}

/** The body as a form, with the recording. */
export function formOf(body: Record<string, unknown>, file: File): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) form.append(name, String(value));
  form.append("file", file);
  return form;
}

function messages(system: string, turns: Turn[]) {
  const said = turns.filter((turn) => turn.text || turn.images?.length);
  return [...(system.trim() ? [{ role: "system", content: system }] : []), ...said.map(message)];
}

function message({ role, text, images = [] }: Turn) {
  const pictures = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role, content: pictures.length ? [{ type: "text", text }, ...pictures] : text };
}

const NUMBERS = ["temperature", "top_p", "max_tokens", "frequency_penalty", "presence_penalty", "seed"] as const;

function chosen({ stop, ...given }: Parameters) {
  const set = NUMBERS.map((name) => [name, given[name]] as const).filter(([, value]) => value.trim() !== "");
  const stops = stop.split("\n").filter(Boolean);
  return {
    ...Object.fromEntries(set.map(([name, value]) => [name, Number(value)])),
    ...(stops.length ? { stop: stops } : {}),
  };
}
