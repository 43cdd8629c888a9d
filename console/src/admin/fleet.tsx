/** What the pages of hosts and of deployments have in common. */
import { Meter } from "../parts/figures";
import { lasting, percent, Status, sized } from "../parts/numbers";
import type { Answer } from "../parts/session";
import { When } from "../parts/times";

export type Host = Answer<"/admin/hosts", "get">["data"][number];
export type Deployment = Answer<"/admin/models", "get">["data"][number];
export type Spec = Deployment["spec"];

export const ENGINES: [Deployment["engine"], string][] = [
  ["vllm", "vLLM"],
  ["sglang", "SGLang"],
  ["llamacpp", "llama.cpp"],
  ["tgi", "Text Generation Inference"],
  ["whisper", "Whisper server"],
  ["tts", "Speech server"],
  ["custom", "A command of the host"],
];
export const engineName = (engine: string): string => ENGINES.find(([one]) => one === engine)?.[1] ?? engine;

export const GIB = 2 ** 30;
export const inGib = (gib: number): string => `${gib.toFixed(gib < 1 ? 2 : 1)} GiB`;

interface Gpu {
  index: number;
  name: string;
  memory_total_bytes: number;
  compute_capability: string | null;
}

const listOf = <Entry,>(value: unknown): Entry[] => (Array.isArray(value) ? value : []);

/** What an agent says of its host. Agents of other versions say more or less. */
export function capabilitiesOf({ capabilities }: Pick<Host, "capabilities">) {
  const said = capabilities ?? {};
  return {
    system: [said.system, said.machine].filter(Boolean).join(", "),
    cpus: typeof said.cpu_count === "number" ? said.cpu_count : null,
    memory_total_bytes: typeof said.memory_total_bytes === "number" ? said.memory_total_bytes : null,
    gpus: listOf<Gpu>(said.gpus),
    engines: listOf<string>(said.engines),
    containers: typeof said.container_runtime === "string" ? said.container_runtime : null,
    roots: listOf<string>(said.allowed_roots),
    images: listOf<string>(said.allowed_images),
    flags: listOf<string>(said.allowed_flags),
    commands: listOf<string>(said.allowed_commands),
  };
}

/** GPUs of the same name are counted. */
export function gpusInWords(host: Pick<Host, "capabilities">): string {
  const counts = Map.groupBy(capabilitiesOf(host).gpus, ({ name }) => name || "GPU");
  return [...counts].map(([name, { length }]) => (length > 1 ? `${length} × ${name}` : name)).join(", ") || "none";
}

/** Whether the agent calls. A silent host goes on with what it runs. */
export const Contact = ({ host }: { host: Pick<Host, "state" | "contact"> & { last_seen_at?: string | null } }) => {
  if (host.state === "retired") return <Status of="retired" />;
  if (host.contact === "never") return <span class="status">not enrolled</span>;
  return (
    <span class="group">
      {host.contact === "seen" ? <Status of="seen" /> : <span class="status bad">silent</span>}
      {host.contact === "unseen" && host.last_seen_at && (
        <span class="small soft nowrap">
          since <When at={host.last_seen_at} />
        </span>
      )}
      {host.state === "cordoned" && <Status of="cordoned" />}
    </span>
  );
};

type Size = number | null | undefined;

/** A part of a whole, with both sizes. */
export const Used = ({ used, total, label }: { used: Size; total: Size; label: string }) =>
  used == null || total == null ? (
    <span class="soft">–</span>
  ) : (
    <span class="used">
      <Meter used={used} limit={total} label={label} />
      <span class="small nowrap">
        {sized(used)} of {sized(total)}
      </span>
    </span>
  );

const RESTING: Record<Deployment["wanted"], Deployment["phase"][]> = {
  running: ["running"],
  stopped: ["stopped"],
  on_demand: ["running", "stopped"],
};

/** The same in a table: the share, and the sizes on hover. */
export const UsedShare = ({ used, total, label }: { used: Size; total: Size; label: string }) =>
  used == null || !total ? (
    <span class="soft">–</span>
  ) : (
    <span class="used one-line" title={`${sized(used)} of ${sized(total)}`}>
      <Meter used={used} limit={total} label={label} />
      <span class="small">{percent(used, total)}</span>
    </span>
  );

/** Whether the host is about to bring it into another phase. */
export const isMoving = (row: Deployment): boolean =>
  row.host.contact === "seen" &&
  !(row.phase === "failed" && row.wanted !== "stopped" && !row.retry_at) &&
  (!RESTING[row.wanted].includes(row.phase) ||
    (row.phase === "running" && row.running_generation !== row.applied_generation));

const MOVING_SECONDS = 3;
const RESTING_SECONDS = 30;
export const pauseFor = (rows: Deployment[]): number => (rows.some(isMoving) ? MOVING_SECONDS : RESTING_SECONDS);

export const Phase = ({ row }: { row: Deployment }) => (
  <span class="phase">
    <Status of={row.phase} />
    {row.phase === "downloading" && <Download progress={row.progress} />}
  </span>
);

/** How far a download is. Nothing is known of it before its first bytes. */
export function Download({ progress }: { progress: Deployment["progress"] }) {
  const { bytes_done: done, bytes_total: total, bytes_per_second: rate, seconds_left: left } = progress ?? {};
  if (typeof done !== "number" || typeof total !== "number") return <progress aria-label="Download" />;
  const told = [
    `${sized(done)} of ${sized(total)}`,
    typeof rate === "number" && rate > 0 && `${sized(rate)}/s`,
    typeof left === "number" && `${lasting(left * 1000)} left`,
  ];
  return (
    <span class="used">
      <progress aria-label="Download" max={total || 1} value={done} />
      <span class="small">{told.filter(Boolean).join(", ")}</span>
    </span>
  );
}

interface Diagnosis {
  title?: string | null;
  message?: string | null;
  fixes?: string[];
}

/** Why an engine failed, and what to do. */
export function Diagnosed({ of }: { of: Diagnosis }) {
  return (
    <div class="problem" role="status">
      <strong>{of.title ?? "The engine failed"}</strong>
      {of.message && <p>{of.message}</p>}
      {!!of.fixes?.length && (
        <ul class="fixes">
          {of.fixes.map((fix) => (
            <li key={fix}>{fix}</li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** By which names clients can call it. */
export const namesOf = ({ offered_as, pricing }: Deployment): string =>
  offered_as.join(", ") || (pricing ? "not now" : "never: it has no price");

/** `name=value`, as in labels and environments. */
export function pairOf(line: string): [string, string] {
  const [name = "", ...rest] = line.split("=");
  return [name.trim(), rest.join("=").trim()];
}
