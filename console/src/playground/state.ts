/** The state of the playground, and what changes it. */
import { batch, computed, signal } from "@preact/signals";
import * as api from "../parts/api";
import { type Balance, Failed, type Model, newId, type Problem } from "../parts/api";
import * as history from "./history";
import { events } from "./sse";
import { bodyOf, type Draft, type Figures, formOf, isText, type Mode, NO_PARAMETERS, PATHS, type Turn } from "./turns";

const START: Draft = { mode: "chat", model: "", system: "", parameters: NO_PARAMETERS, stream: true, cache: false };

export const key = signal("");
export const balance = signal<Balance | null>(null);
export const availableNanos = signal<bigint | null>(null);
export const models = signal<Model[] | null>(null);
export const problem = signal<Problem | null>(null);
export const draft = signal<Draft>(START);
export const turns = signal<Turn[]>([]);
export const text = signal("");
export const images = signal<string[]>([]);
/** The recording to transcribe. */
export const recording = signal<File | null>(null);
export const running = signal<AbortController | null>(null);
export const conversation = signal(newId());
export const model = computed(() => models.value?.find(({ id }) => id === draft.value.model) ?? null);

export const change = (given: Partial<Draft>): void => {
  draft.value = { ...draft.value, ...given };
};

/** Whether a model is served at the endpoint of a mode. One that only makes images is no model to chat with. */
export const usable = (mode: Mode, { endpoints = [], architecture }: Model): boolean =>
  endpoints.some(({ path }) => path === `/${PATHS[mode]}`) &&
  (!isText(mode) || (architecture?.output_modalities?.includes("text") ?? true));

export const takesImages = computed(() => !!model.value?.architecture?.input_modalities?.includes("image"));

/** Reads the balance and the models of a key. The key is kept in memory only. */
export async function connect(given: string): Promise<void> {
  problem.value = null;
  try {
    const [found, listed] = await Promise.all([api.balance(given), api.models(given)]);
    key.value = given;
    show(found);
    models.value = listed;
    choose(draft.value.mode);
  } catch (error) {
    problem.value = asProblem(error);
  }
}

export function disconnect(): void {
  stop();
  key.value = "";
  balance.value = availableNanos.value = models.value = null;
}

/** Changes the mode, and the model if it does not fit the mode. */
export function choose(mode: Mode): void {
  const fitting = models.value?.filter((one) => usable(mode, one)) ?? [];
  const kept = fitting.find(({ id }) => id === draft.value.model) ?? fitting[0];
  change({ mode, model: kept?.id ?? "" });
  if (mode !== "chat") fresh();
}

export const fresh = (): void =>
  batch(() => {
    if (turns.value.length) conversation.value = newId();
    turns.value = [];
    images.value = [];
    recording.value = null;
  });

export const open = (kept: history.Conversation): void =>
  batch(() => {
    stop();
    conversation.value = kept.id;
    draft.value = { ...START, ...kept.draft, parameters: { ...NO_PARAMETERS, ...kept.draft.parameters } };
    turns.value = kept.turns;
  });

export const stop = (): void => running.value?.abort();

export function send(): void {
  const { value: file } = recording;
  const said: Turn = file
    ? { role: "user", text: file.name, file }
    : { role: "user", text: text.value, ...(images.value.length ? { images: images.value } : {}) };
  const before = draft.value.mode === "chat" ? turns.value.filter((turn) => !turn.problem) : [];
  text.value = "";
  images.value = [];
  recording.value = null;
  void answer([...before, said], newId());
}

/** Sends the last message again. When the connection broke, the same body gets the same Idempotency-Key, so nothing is
 * paid twice. */
export function again(given: Partial<Draft["parameters"]> = {}): void {
  change({ parameters: { ...draft.value.parameters, ...given } });
  const asked = turns.value.slice(0, turns.value.findLastIndex(({ role }) => role === "user") + 1);
  const broken = turns.value.at(-1)?.problem?.code === "connection_failed";
  const same = JSON.stringify(bodyOf(draft.value, asked)) === sent.body && asked.at(-1)?.file === sent.file;
  void answer(asked, broken && same ? sent.id : newId());
}

let sent: { id: string; body: string; file: File | undefined } = { id: "", body: "", file: undefined };

async function answer(asked: Turn[], id: string): Promise<void> {
  const controller = new AbortController();
  const { mode, model, stream } = draft.value;
  const streamed = stream && isText(mode);
  const made = new Answer(model, streamed);
  const body = bodyOf(draft.value, asked);
  const file = asked.at(-1)?.file;
  sent = { id, body: JSON.stringify(body), file };
  running.value = controller;
  const show = () => {
    turns.value = [...asked, made.turn()];
  };
  show();
  try {
    // A request with an Idempotency-Key gets its own answer, and none from the cache.
    const headers = { "x-tollgate-usage": "true", ...(body.cache ? {} : { "idempotency-key": id }) };
    const response = file
      ? await api.postForm(PATHS[mode], key.value, formOf(body, file), headers, controller.signal)
      : await api.post(PATHS[mode], key.value, body, headers, controller.signal);
    made.began(response.headers);
    if (streamed && response.body) {
      for await (const event of events(response.body)) {
        made.take(event);
        show();
      }
    } else if (mode === "speech") made.hear(await dataUrl(await response.blob()));
    else made.take(await response.json());
    made.ended();
  } catch (error) {
    made.failed(error);
  }
  show();
  running.value = null;
  remember();
  await reckon(made.figures);
  if (made.figures.chargeNanos !== null || !made.figures.usageId) return;
  const { value: shown } = turns;
  made.figures.chargeNanos = await chargeOf(made.figures.usageId, () => turns.value === shown);
  if (made.figures.chargeNanos === null || turns.value !== shown) return;
  show();
  remember();
  await reckon(made.figures);
}

const remember = () => history.keep({ id: conversation.value, at: Date.now(), draft: draft.value, turns: turns.value });

const PAUSES_MS = [0, 1000, 2000, 3000, 4000, 4000, 4000, 4000, 8000, 16_000, 30_000];

/** The headers of speech, and those of an answer that was stopped, leave before the charge is known. So it is read of
 * the request, while the answer is shown. The sweeper looks the charge up every 15 seconds: until it has had its turn,
 * the pauses are short. */
async function chargeOf(usageId: string, isShown: () => boolean): Promise<string | null> {
  for (const pause of PAUSES_MS) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (!isShown()) return null;
    const found = await api.charge(key.value, usageId).catch(() => null);
    if (found !== null) return found;
  }
  return null;
}

export const dataUrl = (file: Blob): Promise<string> =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });

/** The balance after an answer: from the answer itself if it has one. */
async function reckon(figures: Figures): Promise<void> {
  if (figures.balanceNanos !== null) availableNanos.value = BigInt(figures.balanceNanos);
  else if (key.value) await api.balance(key.value).then(show, () => {});
}

function show(found: Balance): void {
  balance.value = found;
  availableNanos.value = BigInt(found.available_nanos);
}

type Json = Record<string, never> | undefined;

class Answer {
  private readonly started = performance.now();
  private first: number | null = null;
  private text = "";
  private reasoning = "";
  private images: string[] = [];
  private sound: string | undefined;
  private problem: Problem | undefined;
  figures: Figures = {
    streamed: false,
    firstTokenMs: null,
    seconds: 0,
    promptTokens: null,
    completionTokens: null,
    cachedTokens: 0,
    heardSeconds: null,
    chargeNanos: null,
    balanceNanos: null,
    requestId: null,
    usageId: null,
    replayed: false,
    cache: null,
    stopped: false,
  };

  constructor(
    private readonly model: string,
    streamed: boolean,
  ) {
    this.figures.streamed = streamed;
  }

  began(headers: Headers): void {
    this.figures.requestId = headers.get("x-request-id");
    this.figures.usageId = headers.get("x-tollgate-request-id");
    this.figures.replayed = headers.get("idempotency-replayed") === "true";
    this.figures.cache = headers.get("x-tollgate-cache");
    this.figures.chargeNanos = headers.get("x-tollgate-charge-nanos");
    this.figures.balanceNanos = headers.get("x-tollgate-balance-nanos");
  }

  /** A whole answer, or one event of a stream. */
  take(event: Record<string, unknown>): void {
    const choice = (event.choices as Record<string, unknown>[] | undefined)?.[0];
    const said = (choice?.delta ?? choice?.message ?? choice) as Record<string, string> | undefined;
    const heard = typeof event.text === "string" ? event.text : undefined;
    this.say(said?.content ?? said?.text ?? heard ?? vector(event), said?.reasoning ?? said?.reasoning_content ?? "");
    this.see(event);
    if (event.usage) this.count(event.usage as Record<string, unknown>);
    if (event.error) throw new Failed(api.problem(event.error, 200, this.figures.requestId));
  }

  /** Speech, which comes as bytes. */
  hear(sound: string): void {
    this.first ??= performance.now();
    this.sound = sound;
  }

  /** Images that were made. Those at an address of another host are not loaded, only named. */
  private see(event: Record<string, unknown>): void {
    for (const { b64_json, media_type = "image/png", url } of picturesOf(event)) {
      this.first ??= performance.now();
      if (b64_json) this.images.push(`data:${media_type};base64,${b64_json}`);
      else if (url) this.text += `${url}\n`;
    }
  }

  private say(text: string, reasoning: string): void {
    if (text || reasoning) this.first ??= performance.now();
    this.text += text;
    this.reasoning += reasoning;
  }

  private count(usage: Record<string, unknown>): void {
    const { tollgate, prompt_tokens, completion_tokens, prompt_tokens_details } = usage as Record<
      string,
      Json & object
    >;
    const charged = tollgate as Record<string, number> | undefined;
    Object.assign(this.figures, {
      heardSeconds: (usage.seconds as number | undefined) ?? null,
      promptTokens: prompt_tokens ?? null,
      completionTokens: completion_tokens ?? null,
      cachedTokens: (prompt_tokens_details as { cached_tokens?: number } | null)?.cached_tokens ?? 0,
    });
    if (charged?.charge_nanos !== undefined) this.figures.chargeNanos = String(charged.charge_nanos);
    if (charged?.balance_nanos !== undefined) this.figures.balanceNanos = String(charged.balance_nanos);
  }

  ended(): void {
    const now = performance.now();
    this.figures.firstTokenMs = this.first === null ? null : this.first - this.started;
    this.figures.seconds = (now - (this.first ?? this.started)) / 1000;
  }

  failed(error: unknown): void {
    this.ended();
    if (error instanceof DOMException && error.name === "AbortError") this.figures.stopped = true;
    else this.problem = asProblem(error);
  }

  turn(): Turn {
    return {
      role: "assistant",
      text: this.text,
      reasoning: this.reasoning,
      model: this.model,
      figures: { ...this.figures },
      ...(this.images.length ? { images: this.images } : {}),
      ...(this.sound ? { sound: this.sound } : {}),
      ...(this.problem ? { problem: this.problem } : {}),
    };
  }
}

type Picture = { b64_json?: string; media_type?: string; url?: string };

const picturesOf = (event: Record<string, unknown>): Picture[] =>
  ((event.data as Picture[] | undefined) ?? []).filter(({ b64_json, url }) => b64_json || url);

function vector(event: Record<string, unknown>): string {
  const found = (event.data as { embedding?: number[] }[] | undefined)?.[0]?.embedding;
  return Array.isArray(found) ? JSON.stringify(found) : "";
}

const BROKEN = "The connection broke before the answer ended. What was generated until then may be charged.";
const asProblem = (error: unknown): Problem => api.asProblem(error, BROKEN);
