/** Filters of a view. Their values are in its address. */
import { useEffect, useState } from "preact/hooks";
import { Icon } from "./basics";
import { go, refine, route, withFilters } from "./routing";

const PAUSE_MS = 250;

export function Search({ label, name = "q" }: { label: string; name?: string }) {
  const kept = route.value.filters[name] ?? "";
  const [text, setText] = useState(kept);
  useEffect(() => setText(kept), [kept]);
  useEffect(() => {
    if (text === kept) return;
    const timer = setTimeout(() => refine({ [name]: text.trim() }), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <label class="search">
      <span class="offscreen">{label}</span>
      <Icon name="search" />
      <input
        type="search"
        placeholder={label}
        value={text}
        maxLength={200}
        onInput={(event) => setText(event.currentTarget.value)}
      />
    </label>
  );
}

export function Choice({
  label,
  name,
  options,
  all = "All",
}: {
  label: string;
  name: string;
  options: [value: string, label: string][];
  all?: string | null;
}) {
  return (
    <label class="choice">
      <span>{label}</span>
      <select
        class="compact"
        value={route.value.filters[name] ?? ""}
        onChange={(event) => go(withFilters({ [name]: event.currentTarget.value }))}
      >
        {all !== null && <option value="">{all}</option>}
        {options.map(([value, shown]) => (
          <option key={value} value={value}>
            {shown}
          </option>
        ))}
      </select>
    </label>
  );
}

const PERIODS: [hours: string, label: string][] = [
  ["24", "24 hours"],
  ["168", "7 days"],
  ["720", "30 days"],
];

/** The period of a view as the API takes it: the last hours, or two dates. */
export function period(usual = "24"): Record<string, string> {
  const { hours, from, to } = route.value.filters;
  return from || to ? { ...(from ? { from } : {}), ...(to ? { to } : {}) } : { hours: hours ?? usual };
}

export function Period({ usual = "24", dates = true }: { usual?: string; dates?: boolean }) {
  const { hours, from, to } = route.value.filters;
  const chosen = from || to ? "dates" : (hours ?? usual);
  const choose = (value: string) =>
    go(withFilters(value === "dates" ? { hours: "", from: daysAgo(0), to: "" } : { hours: value, from: "", to: "" }));
  return (
    <div class="period">
      <fieldset class="segments">
        <legend class="offscreen">Period</legend>
        {[...PERIODS, ...(dates ? [["dates", "Dates"] as const] : [])].map(([value, label]) => (
          <label key={value}>
            <input type="radio" name="period" checked={chosen === value} onChange={() => choose(value)} />
            <span>{label}</span>
          </label>
        ))}
      </fieldset>
      {chosen === "dates" && (
        <>
          <DateField name="from" label="From (UTC)" />
          <DateField name="to" label="Before (UTC)" />
        </>
      )}
    </div>
  );
}

/** What a list of a period says when it is empty: the period may be too short. */
export const NothingInPeriod = ({ children }: { children: string }) => (
  <>
    <p>{children}</p>
    {!route.value.filters.from && (
      <a class="button" href={withFilters({ hours: "", from: daysAgo(365), to: "", cursor: "" })}>
        Show a year
      </a>
    )}
  </>
);

const DateField = ({ name, label }: { name: string; label: string }) => (
  <label class="choice">
    <span>{label}</span>
    <input
      type="date"
      class="compact"
      value={route.value.filters[name]?.slice(0, 10) ?? ""}
      onChange={(event) => go(withFilters({ [name]: event.currentTarget.value }))}
    />
  </label>
);

const DAY_MS = 86_400_000;
const daysAgo = (days: number) => new Date(Date.now() - days * DAY_MS).toISOString().slice(0, 10);
