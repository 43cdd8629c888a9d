/** The playground: a conversation with a model, and what each answer costs. */
import { effect, useSignal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Copy, Field, Icon, Money, notify } from "../parts/basics";
import { Frame } from "../parts/frame";
import { perMillion } from "../parts/money";
import { sized } from "../parts/numbers";
import { ProblemBox } from "../parts/problems";
import { curl, curlForm, python } from "../parts/snippets";
import { When, ZoneSwitch } from "../parts/times";
import * as history from "./history";
import { Remedies } from "./remedies";
import * as state from "./state";
import { bodyOf, type Figures, isCacheable, isText, type Mode, PATHS, type Parameters, type Turn } from "./turns";

const MODES: [Mode, string][] = [
  ["chat", "Chat"],
  ["completion", "Completion"],
  ["embedding", "Embedding"],
  ["image", "Image"],
  ["speech", "Speech"],
  ["transcription", "Transcription"],
];
const ALWAYS: Mode[] = ["chat", "completion", "embedding"];
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const rate = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const FEW_MODELS = 12;
const LARGEST_IMAGE = 4 * 1024 * 1024;
const LARGEST_RECORDING = 25 * 1024 * 1024;

const isWide = () => matchMedia("(min-width: 900px)").matches;

function Playground() {
  return (
    <Frame page="ui" aside={<Account />}>
      {state.key.value ? <Workplace /> : <Connect />}
    </Frame>
  );
}

function Account() {
  const { value: found } = state.balance;
  const { value: available } = state.availableNanos;
  if (!found || available === null) return null;
  return (
    <>
      <span class="balance">
        <span class="soft">{found.environment === "test" ? "Test key" : "Balance"}</span>
        <Money nanos={available} />
        <span class="soft">credits</span>
      </span>
      <button
        type="button"
        class="quiet"
        title={found.masked_key ?? undefined}
        aria-label="Change key"
        onClick={state.disconnect}
      >
        <Icon name="key" />
        <span class="wide">Change key</span>
      </button>
    </>
  );
}

function Connect() {
  const given = useSignal("");
  const busy = useSignal(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    busy.value = true;
    await state.connect(given.value.trim());
    busy.value = false;
  };
  return (
    <main class="connect">
      <form class="card" onSubmit={submit}>
        <h1>Talk to a model</h1>
        <p class="soft">
          Paste an API key. It stays in the memory of this tab and is gone when you close or reload it.
        </p>
        <Field label="API key">
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            placeholder="tg_live_…"
            required
            value={given.value}
            onInput={(event) => {
              given.value = event.currentTarget.value;
            }}
          />
        </Field>
        {state.problem.value && <ProblemBox problem={state.problem.value} />}
        <button type="submit" class="primary" disabled={busy.value}>
          {busy.value ? "Checking the key…" : "Use this key"}
        </button>
        <p class="soft small">Answers cost credits. A key that begins with tg_test_ talks to a sandbox, for free.</p>
      </form>
    </main>
  );
}

function Workplace() {
  return (
    <div class="workplace">
      <History />
      <main class="talk">
        <h1 class="offscreen">Playground</h1>
        <Bar />
        <Conversation />
        <Composer />
      </main>
      <Settings />
    </div>
  );
}

/** Some keys have no model for images or sound. */
const isOffered = (mode: Mode): boolean =>
  ALWAYS.includes(mode) ||
  mode === state.draft.value.mode ||
  !!state.models.value?.some((one) => state.usable(mode, one));

const asCurl = () =>
  (state.draft.value.mode === "transcription" ? curlForm : curl)(PATHS[state.draft.value.mode], asked());

function Bar() {
  return (
    <div class="bar">
      <fieldset class="segments">
        <legend class="offscreen">Endpoint</legend>
        {MODES.filter(([mode]) => isOffered(mode)).map(([mode, name]) => (
          <label key={mode}>
            <input
              type="radio"
              name="mode"
              checked={state.draft.value.mode === mode}
              onChange={() => state.choose(mode)}
            />
            <span>{name}</span>
          </label>
        ))}
      </fieldset>
      <div class="end">
        <Copy label="curl" text={asCurl}>
          <Icon name="copy" /> curl
        </Copy>
        <Copy label="Python" text={() => python(PATHS[state.draft.value.mode], asked())}>
          <Icon name="copy" /> Python
        </Copy>
        <button type="button" class="quiet" onClick={fresh}>
          <Icon name="plus" /> New
        </button>
      </div>
    </div>
  );
}

/** The next request, or the last one when nothing is typed. */
function asked() {
  const next: Turn[] = state.text.value ? [{ role: "user", text: state.text.value, images: state.images.value }] : [];
  const said = state.turns.value.filter((turn) => !turn.problem);
  return bodyOf(
    state.draft.value,
    next.length || said.at(-1)?.role !== "assistant" ? [...said, ...next] : said.slice(0, -1),
  );
}

function fresh(): void {
  state.stop();
  state.fresh();
  location.hash = "";
  document.querySelector<HTMLTextAreaElement>("#message")?.focus();
}

function History() {
  const kept = history.conversations.value;
  const clear = () => {
    history.restore([]);
    notify("The history is cleared.", () => history.restore(kept));
  };
  return (
    <aside class="history" aria-label="History">
      <details open={isWide()}>
        <summary>
          <h2>History</h2>
          {kept.length > 0 && <span class="soft small">{kept.length}</span>}
        </summary>
        {kept.length === 0 && (
          <p class="soft small">Your conversations will be listed here. They stay in this browser.</p>
        )}
        <ul>
          {kept.map((one) => (
            <li key={one.id}>
              <a href={`#/${one.id}`} aria-current={one.id === state.conversation.value ? "true" : undefined}>
                <span class="title">{one.turns.find(({ text }) => text)?.text.slice(0, 80) || "Image"}</span>
                <span class="soft small">
                  <When at={new Date(one.at).toISOString()} />
                </span>
              </a>
            </li>
          ))}
        </ul>
        {kept.length > 0 && (
          <>
            <ZoneSwitch />
            <button type="button" class="quiet" onClick={clear}>
              <Icon name="trash" /> Clear history
            </button>
          </>
        )}
      </details>
    </aside>
  );
}

function Conversation() {
  const end = useRef<HTMLDivElement>(null);
  const { value: turns } = state.turns;
  useEffect(() => end.current?.scrollTo({ top: end.current.scrollHeight }), [turns]);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must take the focus to be scrolled by keyboard
    <section class="turns" ref={end} aria-label="Conversation" tabIndex={0}>
      {turns.length === 0 ? (
        <Nothing />
      ) : (
        turns.map((turn, index) => <Said key={index} turn={turn} last={index === turns.length - 1} />)
      )}
    </section>
  );
}

const FIRST: Record<Mode, string> = {
  chat: "Write a message. The answer streams in here, with its time, its tokens and what it cost.",
  completion: "Write the beginning of a text. The model goes on from there.",
  embedding: "Write a text to get its vector.",
  image: "Describe an image. It appears here, with what it cost.",
  speech: "Write a text. You can play it here when it is spoken.",
  transcription: "Choose a recording. Its text appears here, with what it cost.",
};

const Nothing = () => (
  <div class="nothing">
    <p class="large">{state.model.value?.name ?? "No model"}</p>
    <p class="soft">{state.model.value ? FIRST[state.draft.value.mode] : "This key has no model for this endpoint."}</p>
  </div>
);

function Said({ turn, last }: { turn: Turn; last: boolean }) {
  const waits = last && state.running.value !== null;
  return (
    <article class={turn.role} aria-busy={waits}>
      <h2>{turn.role === "user" ? "You" : turn.model}</h2>
      {turn.images?.map((url) => (
        <img key={url} src={url} alt={turn.role === "user" ? "Sent with the message" : "Made by the model"} />
      ))}
      {turn.sound && <Sound url={turn.sound} />}
      {isGone(turn, waits) && <p class="soft">Images and sound are not kept in the history.</p>}
      {turn.reasoning && (
        <details>
          <summary>Reasoning</summary>
          <p class="words soft">{turn.reasoning}</p>
        </details>
      )}
      {turn.text && (
        <p class={state.draft.value.mode === "embedding" && turn.role === "assistant" ? "words code" : "words"}>
          {turn.text}
        </p>
      )}
      {waits && !turn.text && !turn.reasoning && (
        <p class="soft waiting">
          {isText(state.draft.value.mode) ? "Waiting for the first token…" : "Waiting for the answer…"}
        </p>
      )}
      {turn.problem && <ProblemBox problem={turn.problem} midway={turn.text !== ""} />}
      {!waits && turn.figures && (turn.text || !turn.problem) && <Told figures={turn.figures} turn={turn} />}
      {last && !waits && turn.problem && <Remedies problem={turn.problem} />}
    </article>
  );
}

/** Of an answer that comes from the history. */
const isGone = ({ role, text, images, sound, problem, figures }: Turn, waits: boolean): boolean =>
  role === "assistant" && !waits && !text && !images && !sound && !problem && !figures?.stopped;

function Sound({ url }: { url: string }) {
  const failed = useSignal(false);
  return (
    <div class="sound">
      {failed.value ? (
        <p class="soft">This browser cannot play it. Save it, or choose another format.</p>
      ) : (
        // biome-ignore lint/a11y/useMediaCaption: the text was typed by the person who hears it
        <audio
          controls
          src={url}
          aria-label="Speech"
          onError={() => {
            failed.value = true;
          }}
        />
      )}
      <a class="button" href={url} download="speech">
        <Icon name="down" /> Save
      </a>
    </div>
  );
}

function Told({ figures, turn }: { figures: Figures; turn: Turn }) {
  const speed = figures.completionTokens && figures.seconds > 0.001 ? figures.completionTokens / figures.seconds : null;
  return (
    <div class="told">
      <dl class="figures">
        <Figure name="Charge" value={<Charge of={figures} />} />
        {figures.heardSeconds != null && <Figure name="Recording" value={`${whole.format(figures.heardSeconds)} s`} />}
        {figures.promptTokens !== null && <Figure name="Tokens in" value={whole.format(figures.promptTokens)} />}
        {figures.completionTokens !== null && (
          <Figure name="Tokens out" value={whole.format(figures.completionTokens)} />
        )}
        {figures.firstTokenMs !== null && (
          <Figure name={figures.streamed ? "First token" : "Time"} value={`${whole.format(figures.firstTokenMs)} ms`} />
        )}
        {figures.cache && <Figure name="Cache" value={figures.cache} />}
        {speed !== null && figures.streamed && <Figure name="Speed" value={`${rate.format(speed)} tokens/s`} />}
      </dl>
      {figures.replayed && <span class="badge">Replayed, not charged again</span>}
      {figures.cachedTokens > 0 && <span class="badge">{whole.format(figures.cachedTokens)} tokens cached</span>}
      {figures.stopped && <span class="badge">Stopped; what was generated is charged</span>}
      {turn.text && <Copy label="Answer" text={() => turn.text} />}
    </div>
  );
}

/** That of speech, and of what was stopped, is known a little later. */
function Charge({ of: { chargeNanos, usageId } }: { of: Figures }) {
  if (chargeNanos !== null) return <Money nanos={BigInt(chargeNanos)} />;
  return usageId ? (
    <a class="text" href={`account#/usage?hours=720&open=${usageId}`}>
      not known yet
    </a>
  ) : (
    <>–</>
  );
}

const Figure = ({ name, value }: { name: string; value: preact.ComponentChildren }) => (
  <div>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
);

const PLACEHOLDERS: Partial<Record<Mode, string>> = {
  chat: "Message…",
  image: "What to paint…",
  speech: "What to say…",
};

function Composer() {
  const { mode } = state.draft.value;
  const hears = mode === "transcription";
  const given = hears ? state.recording.value : state.text.value.trim() || state.images.value.length;
  const ready = given && state.model.value && !state.running.value;
  const submit = (event: Event) => {
    event.preventDefault();
    if (ready) state.send();
  };
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  return (
    <form class="composer" onSubmit={submit}>
      {state.images.value.length > 0 && <Thumbnails />}
      {hears ? (
        <Recording />
      ) : (
        <textarea
          id="message"
          aria-label={mode === "chat" ? "Message" : "Text"}
          placeholder={PLACEHOLDERS[mode] ?? "Text…"}
          rows={3}
          value={state.text.value}
          onInput={(event) => {
            state.text.value = event.currentTarget.value;
          }}
          onKeyDown={keys}
        />
      )}
      <div class="row">
        {state.takesImages.value && mode === "chat" && <Attach />}
        <span class="soft small wide">
          {hears ? "At most 25 MB; the whole recording is charged" : "Enter sends, Shift+Enter starts a new line"}
        </span>
        {state.running.value ? (
          <button type="button" class="stop" onClick={state.stop}>
            <Icon name="stop" /> Stop
          </button>
        ) : (
          <button type="submit" class="primary" disabled={!ready}>
            <Icon name="send" /> Send
          </button>
        )}
      </div>
    </form>
  );
}

/** The recording to transcribe, chosen or dropped here. */
function Recording() {
  const take = (file: File | undefined) => {
    if (file && file.size > LARGEST_RECORDING) notify(`${file.name} is larger than 25 MB.`);
    else state.recording.value = file ?? null;
  };
  const { value: file } = state.recording;
  return (
    <label
      class="recording"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        take(event.dataTransfer?.files[0]);
      }}
    >
      <input
        type="file"
        class="offscreen"
        accept="audio/*,video/mp4,video/webm"
        onChange={(event) => take(event.currentTarget.files?.[0])}
      />
      {file ? (
        <>
          <b class="cut">{file.name}</b> <span class="soft">{sized(file.size)}. Choose another</span>
        </>
      ) : (
        "Choose a recording, or drop it here"
      )}
    </label>
  );
}

function Attach() {
  const add = async (event: preact.TargetedEvent<HTMLInputElement>) => {
    const input = event.currentTarget;
    for (const file of input.files ?? []) {
      if (file.size > LARGEST_IMAGE) notify(`${file.name} is larger than 4 MB.`);
      else state.images.value = [...state.images.value, await state.dataUrl(file)];
    }
    input.value = "";
  };
  return (
    <label class="attach">
      <input type="file" class="offscreen" accept="image/*" multiple onChange={add} />
      <Icon name="image" /> Add an image
    </label>
  );
}

const Thumbnails = () => (
  <div class="thumbnails">
    {state.images.value.map((url, index) => (
      <button
        key={url}
        type="button"
        aria-label={`Remove image ${index + 1}`}
        onClick={() => {
          state.images.value = state.images.value.filter((_, at) => at !== index);
        }}
      >
        <img src={url} alt="" />
      </button>
    ))}
  </div>
);

function Settings() {
  const { mode, system, stream } = state.draft.value;
  return (
    <aside class="settings" aria-label="Settings">
      <details open={isWide()}>
        <summary>
          <h2>Settings</h2>
          <span class="soft small">{state.draft.value.model}</span>
        </summary>
        <Models />
        {mode === "chat" && (
          <Field label="System message">
            <textarea
              rows={3}
              value={system}
              placeholder="You are a helpful assistant."
              onInput={(event) => state.change({ system: event.currentTarget.value })}
            />
          </Field>
        )}
        <MediaFields mode={mode} />
        {isCacheable(mode) && <UseCache />}
        {isText(mode) && (
          <>
            <label class="check">
              <input
                type="checkbox"
                checked={stream}
                onChange={(event) => state.change({ stream: event.currentTarget.checked })}
              />
              Stream the answer
            </label>
            <ParameterFields />
          </>
        )}
      </details>
    </aside>
  );
}

const UseCache = () => (
  <label class="check">
    <input
      type="checkbox"
      checked={state.draft.value.cache}
      onChange={(event) => state.change({ cache: event.currentTarget.checked })}
    />
    Use the cache
  </label>
);

function Models() {
  const sought = useSignal("");
  const { mode, model } = state.draft.value;
  const fitting = (state.models.value ?? []).filter((one) => state.usable(mode, one));
  const words = sought.value.toLowerCase().split(/\s+/);
  const found = fitting.filter((one) => {
    const name = `${one.id} ${one.name}`.toLowerCase();
    return one.id === model || words.every((word) => name.includes(word));
  });
  return (
    <div class="models">
      {fitting.length > FEW_MODELS && (
        <Field label="Find a model" hint={`${found.length} of ${fitting.length}`}>
          <input
            type="search"
            value={sought.value}
            onInput={(event) => {
              sought.value = event.currentTarget.value;
            }}
          />
        </Field>
      )}
      <Field label="Model">
        <select value={model} onChange={(event) => state.change({ model: event.currentTarget.value })}>
          {found.map((one) => (
            <option key={one.id} value={one.id}>
              {one.name ?? one.id}
            </option>
          ))}
        </select>
      </Field>
      <Prices />
    </div>
  );
}

function Prices() {
  const { value: model } = state.model;
  if (!model) return null;
  const { pricing = {}, context_length: context } = model;
  const { mode } = state.draft.value;
  const { input, output, inCredits } = PRICED_BY[mode] ?? PER_TOKEN;
  const extras = Object.entries(OF_ONE).filter(([name]) => Number(pricing[name] ?? 0) > 0);
  return (
    <dl class="prices">
      {Number(pricing.prompt ?? 0) !== 0 || isText(mode) ? (
        <Figure
          name="Input"
          value={inCredits ? <Each of={pricing.prompt} unit={input} /> : <Price of={pricing.prompt} unit={input} />}
        />
      ) : null}
      {output && <Figure name="Output" value={<Price of={pricing.completion} unit={output} />} />}
      {extras.map(([name, label]) => (
        <Figure key={name} name={label} value={<Each of={pricing[name]} />} />
      ))}
      {context && <Figure name="Context" value={`${whole.format(context)} tokens`} />}
    </dl>
  );
}

interface PricedBy {
  input: string;
  output?: string;
  /** The price is of one unit, not of a million. */
  inCredits?: boolean;
}
const PER_TOKEN: PricedBy = { input: "tokens", output: "tokens" };
/** What the prices of the prompt and of the answer count, where it is not tokens of both. */
const PRICED_BY: Partial<Record<Mode, PricedBy>> = {
  embedding: { input: "tokens" },
  image: { input: "tokens", output: "tokens" },
  speech: { input: "characters" },
  transcription: { input: "second or token", inCredits: true },
};
const OF_ONE: Record<string, string> = {
  request: "Each request",
  image: "Each image in it",
  output_image: "Each image",
  image_output: "Each image",
  second: "Each second",
  character: "Each character",
};

const Each = ({ of, unit }: { of: string | undefined; unit?: string | undefined }) => (
  <>
    {of} <span class="soft">credits{unit && ` a ${unit}`}</span>
  </>
);

const Price = ({ of, unit }: { of: string | undefined; unit: string }) => {
  const price = perMillion(of);
  return price === null ? (
    <>varies</>
  ) : (
    <>
      {price} <span class="soft">/ 1M {unit}</span>
    </>
  );
};

const FIELDS: [keyof Parameters, string, string, string, string][] = [
  ["max_tokens", "Max tokens", "1", "", "1"],
  ["temperature", "Temperature", "0", "2", "0.1"],
  ["top_p", "Top P", "0", "1", "0.05"],
  ["frequency_penalty", "Frequency penalty", "-2", "2", "0.1"],
  ["presence_penalty", "Presence penalty", "-2", "2", "0.1"],
  ["seed", "Seed", "", "", "1"],
];

const set = (name: keyof Parameters, value: string) =>
  state.change({ parameters: { ...state.draft.value.parameters, [name]: value } });

const MEDIA_FIELDS: Partial<Record<Mode, [keyof Parameters, string, string][]>> = {
  image: [
    ["size", "Size", "Usual"],
    ["n", "Images", "1"],
  ],
  speech: [["voice", "Voice", "alloy"]],
  transcription: [["language", "Language", "As heard"]],
};
const FORMATS = ["mp3", "wav", "opus", "aac", "flac"];

function MediaFields({ mode }: { mode: Mode }) {
  const { parameters } = state.draft.value;
  const fields = MEDIA_FIELDS[mode];
  if (!fields) return null;
  return (
    <div class="grid">
      {fields.map(([name, label, placeholder]) => (
        <Field key={name} label={label}>
          <input
            placeholder={placeholder}
            spellcheck={false}
            {...(name === "n" ? { type: "number", min: 1, max: 10 } : {})}
            value={parameters[name]}
            onInput={(event) => set(name, event.currentTarget.value)}
          />
        </Field>
      ))}
      {mode === "speech" && (
        <Field label="Format">
          <select value={parameters.format} onChange={(event) => set("format", event.currentTarget.value)}>
            {FORMATS.map((format) => (
              <option key={format}>{format}</option>
            ))}
          </select>
        </Field>
      )}
    </div>
  );
}

function ParameterFields() {
  const { parameters } = state.draft.value;
  return (
    <>
      <div class="grid">
        {FIELDS.map(([name, label, min, max, step]) => (
          <Field key={name} label={label}>
            <input
              type="number"
              placeholder="Default"
              {...(min && { min })}
              {...(max && { max })}
              step={step}
              value={parameters[name]}
              onInput={(event) => set(name, event.currentTarget.value)}
            />
          </Field>
        ))}
      </div>
      <Field label="Stop" hint="one a line">
        <textarea rows={1} value={parameters.stop} onInput={(event) => set("stop", event.currentTarget.value)} />
      </Field>
    </>
  );
}

/** The address names the conversation, so that Back, reload and links restore it. */
function follow(): void {
  const kept = history.conversations.value.find(({ id }) => location.hash === `#/${id}`);
  if (kept && kept.id !== state.conversation.value) state.open(kept);
}

document.addEventListener("DOMContentLoaded", () => {
  const page = document.getElementById("page");
  if (page) render(<Playground />, page);
  follow();
  effect(() => {
    const { value: id } = state.conversation;
    if (state.turns.value.length) globalThis.history.replaceState(null, "", `#/${id}`);
  });
});
addEventListener("hashchange", follow);
