/** Charts of a host or of a process of Tollgate: processor, memory, disk and network, and its GPUs or its event loop. */
import { Chart, type Line } from "../parts/chart";
import { Panel, Shown, useData } from "../parts/data";
import { Choice } from "../parts/filters";
import { sized, sizedRate } from "../parts/numbers";
import { route } from "../parts/routing";
import type { Answer, Query } from "../parts/session";

type Found = Answer<"/admin/system/host/trends", "get">;
type Series = Found["cpu"];

const DAY_MINUTES = 1440;
const POINTS = 240;
const PERIODS: [string, string][] = [
  ["60", "1 hour"],
  ["360", "6 hours"],
];

/** What there is in all, where it is known. */
interface Totals {
  memory: number | null | undefined;
  disk: number | null | undefined;
}

/** `nothing` is said where there are no figures of two moments. */
export function Trends({ whose, ...shown }: { whose: Query; totals: Totals; nothing: string }) {
  const minutes = Number(route.value.filters.minutes) || DAY_MINUTES;
  const step = Math.max(60, (minutes * 60) / POINTS);
  const loaded = useData("/admin/system/host/trends", { query: { ...whose, minutes, step_s: step } });
  return (
    <Panel title="Over time" aside={<Choice name="minutes" label="Period" all="24 hours" options={PERIODS} />}>
      <Shown loaded={loaded}>{(found) => <Charts found={found} step={step} {...shown} />}</Shown>
    </Panel>
  );
}

function Charts({ found, step, totals, nothing }: { found: Found; step: number; totals: Totals; nothing: string }) {
  const every = [found.cpu, found.memory_used_bytes, found.disk_used_bytes].flat().map(({ ts }) => ts);
  if (new Set(every).size < 2) return <p class="soft">{nothing}</p>;
  const times = steps(Math.min(...every), Math.max(...every), step);
  const one = (title: string, lines: [string, Series][], written: (value: number) => string, total?: number | null) =>
    lines.some(([, series]) => series.length) && (
      <Chart
        key={title}
        title={title}
        times={times.map((ts) => new Date(ts * 1000).toISOString())}
        bucket="minute"
        kind="lines"
        lines={lines.map(([name, series]) => lineOf(name, series, times))}
        written={written}
        summary={summaryOf(lines, written, total)}
        fractions
      />
    );
  return (
    <div class="columns">
      {one("Processor", [["Machine", found.cpu], ...own(found.process_cpu, ", of one processor")], inPercent)}
      {one("Memory", [["Machine", found.memory_used_bytes], ...own(found.process_memory_bytes)], sized, totals.memory)}
      {one("Delay of the event loop", [["Longest in a minute", found.loop_delay_ms]], inMilliseconds)}
      {one("GPUs: busy", gpuLines(found, "utilization_percent"), inPercent)}
      {one("GPUs: memory", gpuLines(found, "memory_used_bytes"), sized)}
      {one(
        "Network",
        [
          ["Received", found.network_received_bps],
          ["Sent", found.network_sent_bps],
        ],
        sizedRate,
      )}
      {one("Disk", [["Disk", found.disk_used_bytes]], sized, totals.disk)}
    </div>
  );
}

/** Of a process: its own part. */
const own = (series: Series, of = ""): [string, Series][] => (series.length ? [[`This process${of}`, series]] : []);

export const inMilliseconds = (value: number): string =>
  `${value && value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

const inPercent = (value: number): string => `${Math.round(value)}%`;

const gpuLines = ({ gpus }: Found, name: "utilization_percent" | "memory_used_bytes"): [string, Series][] =>
  gpus.map((gpu) => [`GPU ${gpu.index}`, gpu[name]]);

/** All steps, so that a time without figures is a gap in the line. */
const steps = (first: number, last: number, step: number): number[] =>
  Array.from({ length: Math.round((last - first) / step) + 1 }, (_, index) => first + index * step);

function lineOf(name: string, series: Series, times: number[]): Line {
  const values = new Map(series.map(({ ts, value }) => [ts, value]));
  return { name, values: times.map((ts) => values.get(ts) ?? null) };
}

function summaryOf(lines: [string, Series][], written: (value: number) => string, total?: number | null): string {
  const told = lines
    .filter(([, series]) => series.length)
    .map(([name, series]) => {
      const values = series.map(({ value }) => value);
      const now = `${written(values.at(-1) ?? 0)} now`;
      return lines.length > 1 ? `${name}: ${now}` : `${now}, ${written(Math.max(...values))} at most`;
    });
  const known = told.length > 2 ? `${told.length} lines` : told.join("; ");
  return (known || "No figures") + (total ? `, of ${written(total)}` : "");
}
