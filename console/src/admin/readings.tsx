/** Readings of signals and what they are about, as people read them. */
import type { ComponentChildren } from "preact";
import { exactCredits } from "../parts/money";
import { lasting, sized } from "../parts/numbers";
import { link, linkTo } from "../parts/routing";

const number = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

/** Signals that are 1 or 0. */
const WORDS: Record<string, string> = { upstream_down: "down", breaker_open: "open" };

const days = (value: number) => `${number.format(value)} ${value === 1 ? "day" : "days"}`;

const UNITS: [end: string, written: (value: number) => string][] = [
  ["_percent", (value) => `${number.format(value)}%`],
  ["_ms", lasting],
  ["_seconds", (value) => lasting(value * 1000)],
  ["_bytes", sized],
  ["_nanos", (value) => `${exactCredits(BigInt(Math.round(value)))} credits`],
  ["_days_left", days],
  ["_backup", days],
  ["_times_usual", (value) => `${number.format(value)} × usual`],
  ["_ppm", (value) => `${number.format(value)} ppm`],
];

/** By its signal, whose name ends with its unit. */
export function written(signal: string, value: number): string {
  if (WORDS[signal]) return value >= 1 ? WORDS[signal] : "no";
  const unit = UNITS.find(([end]) => signal.endsWith(end));
  return unit ? unit[1](value) : number.format(value);
}

interface Bound {
  signal: string;
  comparison: "at_least" | "below";
  threshold: number;
}

/** A reading, and at which it fires. */
export const against = (of: Bound & { value: number }): string =>
  of.signal in WORDS ? written(of.signal, of.value) : `${written(of.signal, of.value)}; it fires at ${bound(of)}`;

export const bound = ({ signal, comparison, threshold }: Bound): string =>
  WORDS[signal] ?? `${comparison === "at_least" ? "at least" : "below"} ${written(signal, threshold)}`;

export function Value({ of }: { of: Bound & { value: number } }) {
  const isWord = of.signal in WORDS;
  return (
    <span class="stacked">
      <data value={of.value}>{written(of.signal, of.value)}</data>
      {!isWord && <span class="soft small">{bound(of)}</span>}
    </span>
  );
}

const PAGES: Record<string, (id: string) => string> = {
  chn: (id) => link("alerts", { tab: "channels", open: id }),
  hst: (id) => linkTo("hosts", id),
  key: (id) => link("keys", { open: id }),
  org: (id) => linkTo("orgs", id),
  ups: (id) => link("upstreams", { open: id }),
};

/** The page of what a reading is about. Some subjects have none: processes, addresses, days. */
export function pageOf(signal: string, subject: string): string | null {
  if (subject === "installation") return null;
  if (subject === "openrouter") return link("upstreams", { open: subject });
  if (signal === "margin_percent") return link("usage", { model: subject });
  if (signal === "security_events") return link("security", { kind: subject, acknowledged: "false" });
  return PAGES[subject.slice(0, 3)]?.(subject) ?? null;
}

interface About {
  signal: string;
  subject: string;
  subject_name?: string | null;
}

export function Subject({ of: { signal, subject, subject_name } }: { of: About }) {
  const page = pageOf(signal, subject);
  const shown: ComponentChildren =
    subject === "installation" ? "the installation" : subject_name || <code>{subject}</code>;
  return page ? (
    <a class="text cut" href={page}>
      {shown}
    </a>
  ) : (
    <span class="cut">{shown}</span>
  );
}

/** A sentence whose code stands between backticks. */
export const Prose = ({ text }: { text: string }) => (
  <>{text.split("`").map((part, at) => (at % 2 ? <code key={`${at} ${part}`}>{part}</code> : part))}</>
);
