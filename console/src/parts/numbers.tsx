/** Counts, durations and states as people read them. */
import { Money } from "./basics";
import { nanosOf } from "./money";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const share = new Intl.NumberFormat("en-US", { style: "percent", maximumFractionDigits: 1 });

export const counted = (value: number): string => whole.format(value);
export const shortly = (value: number): string =>
  Math.abs(value) < 10_000 ? whole.format(value) : short.format(value);
export const requestCount = (value: number): string => `${counted(value)} ${value === 1 ? "request" : "requests"}`;
export const percent = (part: number, all: number): string => share.format(all ? part / all : 0);

export function Count({ of }: { of: number | null | undefined }) {
  if (of === null || of === undefined) return <span class="soft">–</span>;
  return <data value={of}>{whole.format(of)}</data>;
}

/** The value of a limit. Null is none. */
export const Bound = ({ of }: { of: number | null }) => (of === null ? <>no limit</> : <Count of={of} />);

export function Credits({ of }: { of: string | null | undefined }) {
  const nanos = nanosOf(of ?? "");
  return nanos === null ? <span class="soft">–</span> : <Money nanos={nanos} />;
}

/** A rate of a network, in bits. */
export const sizedRate = (bps: number): string => `${sized(bps).replace("B", "bit")}/s`;

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** A size in bytes, as people read it. */
export function sized(bytes: number): string {
  const step = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(bytes || 1) / 3)));
  return `${(bytes / 1000 ** step).toFixed(step ? 1 : 0)} ${UNITS[step]}`;
}

export function lasting(ms: number): string {
  if (ms < 1000) return `${whole.format(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.round(ms / 60_000);
  if (minutes < 60) return `${minutes} min`;
  if (minutes >= 48 * 60) return `${Math.round(minutes / (24 * 60))} days`;
  return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
}

export const Duration = ({ ms }: { ms: number | null | undefined }) =>
  ms === null || ms === undefined ? <span class="soft">–</span> : <data value={ms}>{lasting(ms)}</data>;

const TONES: Record<string, "good" | "warn" | "bad"> = {
  active: "good",
  ok: "good",
  healthy: "good",
  settled: "good",
  success: "good",
  fresh: "good",
  closed: "good",
  up: "good",
  connected: "good",
  working: "good",
  running: "good",
  seen: "good",
  sent: "good",
  resolved: "good",
  ready: "good",
  agrees: "good",
  sound: "good",
  incomplete: "warn",
  unseen: "warn",
  cordoned: "warn",
  retired: "warn",
  disabled: "warn",
  suspended: "warn",
  expired: "warn",
  held: "warn",
  unsettled: "warn",
  stale: "warn",
  outdated: "warn",
  resting: "warn",
  degraded: "warn",
  medium: "warn",
  denied: "warn",
  refused: "warn",
  warning: "warn",
  half: "warn",
  cold: "warn",
  pending: "warn",
  silenced: "warn",
  behind: "warn",
  explained: "warn",
  "not verified": "warn",
  revoked: "bad",
  locked: "bad",
  released: "warn",
  failed: "bad",
  failure: "bad",
  unhealthy: "bad",
  down: "bad",
  error: "bad",
  unavailable: "bad",
  open: "bad",
  firing: "bad",
  failing: "bad",
  high: "bad",
  critical: "bad",
  differs: "bad",
  "not sound": "bad",
};

/** A state as a word with a colour. The word alone says everything. */
export const Status = ({ of }: { of: string }) => <span class={`status ${TONES[of] ?? ""}`}>{of}</span>;

const rate = new Intl.NumberFormat("en-US", { style: "percent", maximumFractionDigits: 4 });

/** A markup or another rate: 0.05 is 5%. */
export const Rate = ({ of }: { of: number | null }) =>
  of === null ? <span class="soft">–</span> : <data value={of}>{rate.format(of)}</data>;
