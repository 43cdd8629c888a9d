/** How a model would be started: the command, what is wrong with it, and the memory that it needs. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { asProblem, type Problem } from "../parts/api";
import { Waiting } from "../parts/data";
import { Secret } from "../parts/dialogs";
import { ProblemBox } from "../parts/problems";
import { type Answer, send } from "../parts/session";
import { capabilitiesOf, GIB, type Host, inGib } from "./fleet";

export type DryRun = Answer<"/admin/models/dry-run", "post">;
type Warned = DryRun["warnings"][number];

const PAUSE_MS = 400;

/** The dry-run of what a form holds: at once at first, then after a pause in typing. Null asks for nothing. */
export function useDryRun(body: unknown): { found: DryRun | null; problem: Problem | null } {
  const [state, setState] = useState<{ found: DryRun | null; problem: Problem | null }>({ found: null, problem: null });
  const asked = body ? JSON.stringify(body) : "";
  useEffect(() => {
    if (!asked) return setState({ found: null, problem: null });
    const controller = new AbortController();
    const ask = () =>
      send("post", "/admin/models/dry-run", { body: JSON.parse(asked), signal: controller.signal }).then(
        (found) => setState({ found, problem: null }),
        (error) => controller.signal.aborted || setState({ found: null, problem: asProblem(error) }),
      );
    const timer = setTimeout(() => void ask(), state.found || state.problem ? PAUSE_MS : 0);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [asked]);
  return state;
}

export function DryRunShown({
  dryRun: { found, problem },
  host,
  missing,
}: {
  dryRun: { found: DryRun | null; problem: Problem | null };
  host: Pick<Host, "capabilities"> | undefined;
  /** What has to be chosen before anything can be shown. */
  missing?: ComponentChildren;
}) {
  if (problem) return <ProblemBox problem={problem} title="It could not be started like this" />;
  if (!found) return missing ? <p class="soft">{missing}</p> : <Waiting />;
  return (
    <div class="dry-run" role="status">
      <p>
        {found.valid ? (
          <span class="status good">Nothing keeps it from starting</span>
        ) : (
          <span class="status bad">It would not start like this</span>
        )}
      </p>
      {found.warnings.length > 0 && (
        <ul class="steps">
          {found.warnings.map((warning) => (
            <Warning key={`${warning.title} ${warning.message}`} of={warning} />
          ))}
        </ul>
      )}
      <h3>Memory</h3>
      <Memory found={found} host={host} />
      <h3>Command</h3>
      <Secret text={found.command_str} label="Command" />
      <p class="soft small">What only the host knows is in angle brackets.</p>
    </div>
  );
}

const TONES: Record<Warned["severity"], string> = { error: "bad", warning: "warn", info: "" };

const Warning = ({ of }: { of: Warned }) => (
  <li>
    <span class={`status ${TONES[of.severity]}`}>{of.title}</span>
    <p>{of.message}</p>
    <p class="soft">{of.fix}</p>
  </li>
);

const PARTS = [
  ["weights_gb", "Weights"],
  ["kv_cache_gb", "KV cache"],
  ["activations_gb", "Activations"],
  ["overhead_gb", "Overhead"],
] as const;

/** What the model needs of each GPU, or of the host's memory, beside what there is. */
function Memory({ found, host }: { found: DryRun; host: Pick<Host, "capabilities"> | undefined }) {
  const { vram_estimate: needs, fits_gpus: fits } = found;
  if (!needs) return <p class="soft">Not known before the host has read the model's files.</p>;
  const { gpus, memory_total_bytes } = capabilitiesOf(host ?? { capabilities: null });
  const onGpu = needs.gpu_count > 0;
  const sizes = onGpu ? gpus.map((gpu) => gpu.memory_total_bytes) : [memory_total_bytes ?? 0];
  const has = Math.max(0, ...sizes) / GIB;
  return (
    <>
      <Bar needs={needs} has={has} />
      <p>
        {inGib(needs.total_per_gpu_gb)} {onGpu ? "of each GPU" : "of the host's memory"}
        {has > 0 && `, which has ${inGib(has)}`}. <Verdict needs={needs} has={has} fits={fits} />
      </p>
      <p class="soft small">{needs.note}</p>
    </>
  );
}

type Needs = NonNullable<DryRun["vram_estimate"]>;

function Verdict({ needs, has, fits }: { needs: Needs; has: number; fits: number[] | null }) {
  if (needs.gpu_count === 0) return has ? said(needs.total_per_gpu_gb <= has, "There is room.") : null;
  if (!fits) return null;
  return said(fits.length >= needs.gpu_count, `There is room on GPU ${fits.join(", ")}.`);
}

const said = (fits: boolean, room: string) =>
  fits ? <span class="status good">{room}</span> : <span class="status bad">There is no room for it now.</span>;

function Bar({ needs, has }: { needs: Needs; has: number }) {
  const whole = Math.max(needs.total_per_gpu_gb, has) || 1;
  let from = 0;
  const parts = PARTS.map(([name, label], index) => {
    const x = from;
    from += needs[name];
    return { name, label, index: index + 1, x: (100 * x) / whole, width: (100 * needs[name]) / whole };
  });
  return (
    <>
      <svg class="memory" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
        {parts.map(({ name, index, x, width }) => (
          <rect key={name} class={`fill-${index}`} x={x} width={width} height="4" />
        ))}
        {has > 0 && has < whole && <rect class="limit" x={(100 * has) / whole - 0.2} width="0.4" height="4" />}
      </svg>
      <p class="reading">
        {parts.map(({ name, label, index }) => (
          <span key={name}>
            <i class={`swatch swatch-${index}`} /> {label} <b>{inGib(needs[name])}</b>
          </span>
        ))}
      </p>
    </>
  );
}
