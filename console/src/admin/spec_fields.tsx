/** The options of a model: what its engine is told, and for what it is offered. */
import { Check, Input, Lines, Select, type Values } from "../parts/dialogs";
import { perMillion, perToken } from "../parts/money";
import { capabilitiesOf, type Deployment, type Host, pairOf, type Spec } from "./fleet";

type Engine = Spec["engine"];
export type Kind = NonNullable<Spec["kind"]>;

const KINDS: [Kind, string][] = [
  ["text", "Text"],
  ["transcription", "Speech to text"],
  ["speech", "Text to speech"],
];
/** What some engines alone can be told. */
const OPTIONS: Record<string, Engine[]> = {
  context_length: ["vllm", "sglang", "tgi", "llamacpp", "custom"],
  max_sequences: ["vllm", "sglang", "tgi", "llamacpp"],
  gpu_memory_utilization: ["vllm", "sglang", "tgi"],
  tensor_parallel: ["vllm", "sglang", "tgi"],
  dtype: ["vllm", "sglang", "tgi"],
  quantization: ["vllm", "sglang", "tgi"],
  kv_cache_dtype: ["vllm", "sglang", "tgi", "llamacpp"],
  gpu_layers: ["llamacpp"],
  flash_attention: ["llamacpp"],
  trust_remote_code: ["vllm", "sglang", "tgi"],
};
const takes = (engine: Engine, option: string): boolean => !!OPTIONS[option]?.includes(engine);
const YES_NO: [string, string][] = [
  ["", "As the engine decides"],
  ["on", "On"],
  ["off", "Off"],
];

export const kindOf = (engine: Engine, chosen: string): Kind =>
  engine === "whisper"
    ? "transcription"
    : engine === "tts"
      ? "speech"
      : engine === "custom"
        ? (chosen as Kind)
        : "text";

const text = (value: unknown): string => (value === null || value === undefined ? "" : String(value));

export function SpecFields({ engine, host, start }: { engine: Engine; host: Host | undefined; start?: Spec }) {
  const said = capabilitiesOf(host ?? { capabilities: null });
  const number = (name: string, label: string, more: Record<string, unknown> = {}) =>
    takes(engine, name) && (
      <Input
        label={label}
        name={name}
        param={`spec.${name}`}
        type="number"
        defaultValue={text(start?.[name as keyof Spec])}
        {...more}
      />
    );
  const word = (name: string, label: string, placeholder: string) =>
    takes(engine, name) && (
      <Input
        label={label}
        name={name}
        param={`spec.${name}`}
        placeholder={placeholder}
        spellcheck={false}
        defaultValue={text(start?.[name as keyof Spec])}
      />
    );
  return (
    <>
      {engine === "custom" && (
        <div class="pair">
          <Select
            label="Command of the host"
            name="custom_command"
            options={said.commands.map((name) => [name, name])}
            defaultValue={text(start?.custom_command)}
            hint={said.commands.length ? undefined : "The agent's command line allows none (--allow-command)."}
          />
          <Select label="Kind of model" name="kind" options={KINDS} defaultValue={start?.kind ?? "text"} />
        </div>
      )}
      <div class="pair">
        {number("context_length", "Context, in tokens", {
          min: 16,
          placeholder: engine === "llamacpp" ? "4096" : "As the model has",
        })}
        {number("max_sequences", "Sequences at a time", {
          min: 1,
          placeholder: engine === "llamacpp" ? "1" : "As the engine decides",
        })}
        {number("gpu_layers", "Layers on the GPU", { min: 0, placeholder: "All", hint: "0 runs it on the processor." })}
        {number("tensor_parallel", "GPUs for one model", { min: 1, max: 64, placeholder: "1" })}
        {number("gpu_memory_utilization", "Share of each GPU's memory", {
          min: 0.01,
          max: 1,
          step: 0.01,
          placeholder: "0.92",
        })}
      </div>
      {said.gpus.length > 0 && (
        <fieldset class="checks">
          <legend>GPUs that it may use. None chosen: all.</legend>
          {said.gpus.map(({ index, name }) => (
            <Check
              key={index}
              name="gpus"
              value={String(index)}
              label={`${index}: ${name}`}
              defaultChecked={!!start?.gpus?.includes(index)}
            />
          ))}
        </fieldset>
      )}
      <details class="more">
        <summary>More options</summary>
        <div class="form">
          <div class="pair">
            {word("dtype", "Number format", "auto")}
            {word("quantization", "Quantisation", "As its files say")}
            {word("kv_cache_dtype", "Number format of the KV cache", "auto")}
            {takes(engine, "flash_attention") && (
              <Select
                label="Flash attention"
                name="flash_attention"
                options={YES_NO}
                defaultValue={start?.flash_attention == null ? "" : start.flash_attention ? "on" : "off"}
              />
            )}
          </div>
          <Input
            label="Further names for clients"
            name="aliases"
            param="spec.aliases"
            spellcheck={false}
            defaultValue={start?.aliases?.join(", ") ?? ""}
            hint="Separated by commas."
          />
          <Lines
            label="Further flags of the engine"
            name="arguments"
            param="spec.arguments"
            placeholder="--enforce-eager --max-num-batched-tokens 8192"
            spellcheck={false}
            defaultValue={start?.arguments?.join(" ") ?? ""}
            hint="Separated by spaces. The host allows a short list for each engine, and what its command line adds."
          />
          <Lines
            label="Environment of the engine"
            name="environment"
            param="spec.environment"
            placeholder="VLLM_ATTENTION_BACKEND=FLASHINFER"
            spellcheck={false}
            defaultValue={Object.entries(start?.environment ?? {})
              .map((pair) => pair.join("="))
              .join("\n")}
            hint="NAME=value, one a line. Never a secret: it is shown to all operators."
          />
          {(said.images.length > 0 || start?.container_image) && (
            <Select
              label="Container"
              name="container_image"
              options={[["", "None: a program on the host"], ...said.images.map((one): [string, string] => [one, one])]}
              defaultValue={text(start?.container_image)}
            />
          )}
          {takes(engine, "trust_remote_code") && (
            <Check
              label="Run code that comes with the model"
              name="trust_remote_code"
              hint="Only if the host's command line allows it."
              defaultChecked={start?.trust_remote_code ?? false}
            />
          )}
        </div>
      </details>
    </>
  );
}

/** The spec that the fields hold. */
export function specOf(
  values: Values,
  engine: Engine,
  source: Spec["source"],
  servedName: string,
): Record<string, unknown> {
  const only = <Value,>(name: string, value: Value): Value | null => (takes(engine, name) ? value : null);
  const numbers = ["context_length", "max_sequences", "gpu_memory_utilization", "gpu_layers"];
  const words = ["dtype", "quantization", "kv_cache_dtype"];
  const gpus = values.all("gpus").map(Number);
  const attention = values.text("flash_attention");
  return {
    engine,
    kind: kindOf(engine, values.text("kind") || "text"),
    source,
    served_name: servedName,
    aliases: values.list("aliases") ?? [],
    ...Object.fromEntries(numbers.map((name) => [name, only(name, values.number(name))])),
    ...Object.fromEntries(words.map((name) => [name, only(name, values.optional(name))])),
    tensor_parallel: only("tensor_parallel", values.number("tensor_parallel")) ?? 1,
    gpus: gpus.length ? gpus : null,
    flash_attention: only("flash_attention", attention ? attention === "on" : null),
    arguments: values.text("arguments").split(/\s+/).filter(Boolean),
    environment: Object.fromEntries(values.text("environment").split("\n").filter(Boolean).map(pairOf)),
    container_image: values.optional("container_image"),
    custom_command: engine === "custom" ? values.optional("custom_command") : null,
    trust_remote_code: takes(engine, "trust_remote_code") && values.checked("trust_remote_code"),
  };
}

/** Typed for a million, or for one. */
type Price = [name: string, label: string, perMillion: boolean];

const PRICES: Record<Kind, Price[]> = {
  text: [
    ["prompt", "In, credits a million tokens", true],
    ["completion", "Out, credits a million tokens", true],
  ],
  transcription: [["second", "Credits a second of sound", false]],
  speech: [["character", "Credits a million characters", true]],
};

export const PriceFields = ({ kind, pricing }: { kind: Kind; pricing?: Deployment["pricing"] }) => (
  <div class="pair">
    {PRICES[kind].map(([name, label, million]) => (
      <Input
        key={name}
        label={label}
        name={name}
        param={`pricing.${name}`}
        inputMode="decimal"
        placeholder="No price: not offered"
        defaultValue={pricing ? shownPrice(pricing[name], million) : ""}
      />
    ))}
  </div>
);

const shownPrice = (price: unknown, million: boolean): string =>
  typeof price !== "string" ? "" : million ? (perMillion(price) ?? "") : price;

/** Null where no price was typed. With one, each is needed. Prices that have no field stay as they were. */
export function pricingOf(values: Values, kind: Kind, before?: Deployment["pricing"]): Record<string, unknown> | null {
  const prices = PRICES[kind].map(([name, _, million]) => {
    const typed = values.text(name);
    return [name, million ? perToken(typed) : typed];
  });
  return prices.some(([, price]) => price)
    ? { prompt: "0", completion: "0", ...before, ...Object.fromEntries(prices) }
    : null;
}
