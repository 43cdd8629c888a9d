/** Times in the zone that the person chose. The zone is always printed with them. */
import { effect, signal } from "@preact/signals";

export type Zone = "UTC" | "local";
const NAME = "tollgate.zone";

export const zone = signal<Zone>(localStorage.getItem(NAME) === "local" ? "local" : "UTC");

effect(() => localStorage.setItem(NAME, zone.value));

export const zoneName = (): string => (zone.value === "UTC" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone);

function format(options: Intl.DateTimeFormatOptions, at: string): string {
  return new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zoneName() }).format(new Date(at));
}

const isThisYear = (at: string) => new Date(at).getUTCFullYear() === new Date().getUTCFullYear();

export function When({ at, seconds = false }: { at: string | null | undefined; seconds?: boolean }) {
  if (!at) return <span class="soft">–</span>;
  const options: Intl.DateTimeFormatOptions = {
    day: "numeric",
    month: "short",
    hour: "2-digit",
    minute: "2-digit",
    ...(isThisYear(at) ? {} : { year: "numeric" }),
  };
  return (
    <time dateTime={at} title={`${at.replace("T", " ").replace("Z", "")} UTC`}>
      {format(options, at).replace(/ (?=\S+,)/g, "\u00a0")}
      {seconds && <span class="seconds">:{at.slice(17, 19)}</span>}
    </time>
  );
}

/** A bucket of a chart. Days are UTC's, whatever the zone. */
export function bucketName(at: string, bucket: string): string {
  if (bucket === "day" || bucket === "month") {
    return new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" }).format(new Date(at));
  }
  return format({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }, at);
}

export function ZoneSwitch() {
  return (
    <select
      class="compact"
      aria-label="Time zone"
      value={zone.value}
      onChange={(event) => {
        zone.value = event.currentTarget.value as Zone;
      }}
    >
      <option value="UTC">UTC</option>
      <option value="local">Local time</option>
    </select>
  );
}

/** What a field `datetime-local` holds, which is a time in the zone that the person chose. */
export const momentOf = (text: string): string => new Date(zone.value === "UTC" ? `${text}Z` : text).toISOString();

const LONGEST_BY_HOUR_MS = 3 * 24 * 3_600_000;

/** Hours for up to three days, days for more. */
export function bucketFor({ hours, from, to }: Record<string, string>): "hour" | "day" {
  const length = hours
    ? Number(hours) * 3_600_000
    : (to ? Date.parse(to) : Date.now()) - (from ? Date.parse(from) : Date.now());
  return length <= LONGEST_BY_HOUR_MS ? "hour" : "day";
}
