/** Charts of a host: its processor, memory, disk and network, and its GPUs. */
import { Chart, type Line } from "../parts/chart";
import { Panel, Shown, useData } from "../parts/data";
import { Choice } from "../parts/filters";
import { sized, sizedRate } from "../parts/numbers";
import { route } from "../parts/routing";
import type { Answer } from "../parts/session";
import type { Host } from "./fleet";

type Found = Answer<"/admin/system/host/trends", "get">;
type Series = Found["cpu"];

const DAY_MINUTES = 1440;
const POINTS = 240;
const PERIODS: [string, string][] = [
  ["60", "1 hour"],
  ["360", "6 hours"],
];

export function Trends({ host }: { host: Host }) {
  const minutes = Number(route.value.filters.minutes) || DAY_MINUTES;
  const step = Math.max(60, (minutes * 60) / POINTS);
  const loaded = useData("/admin/system/host/trends", { query: { host_id: host.id, minutes, step_s: step } });
  return (
    <Panel title="Over time" aside={<Choice name="minutes" label="Period" all="24 hours" options={PERIODS} />}>
      <Shown loaded={loaded}>{(found) => <Charts found={found} step={step} host={host} />}</Shown>
    </Panel>
  );
}

function Charts({ found, step, host }: { found: Found; step: number; host: Host }) {
  const every = [found.cpu, found.memory_used_bytes, found.disk_used_bytes].flat().map(({ ts }) => ts);
  if (!every.length)
    return <p class="soft">No figures were sent in this period. The agent sends them once a minute.</p>;
  const times = steps(Math.min(...every), Math.max(...every), step);
  const one = (title: string, lines: [string, Series][], written: (value: number) => string, total?: number | null) => (
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
  const { sample } = host;
  return (
    <div class="columns">
      {one("Processor", [["Processor", found.cpu]], inPercent)}
      {one("Memory", [["Memory", found.memory_used_bytes]], sized, sample?.memory_total_bytes)}
      {found.gpus.length > 0 && [
        one("GPUs: busy", gpuLines(found, "utilization_percent"), inPercent),
        one("GPUs: memory", gpuLines(found, "memory_used_bytes"), sized),
      ]}
      {one(
        "Network",
        [
          ["Received", found.network_received_bps],
          ["Sent", found.network_sent_bps],
        ],
        sizedRate,
      )}
      {one("Disk", [["Disk", found.disk_used_bytes]], sized, sample?.disk_total_bytes)}
    </div>
  );
}

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
