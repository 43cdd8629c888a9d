/** What the processes of Tollgate and their machines use, how fast paid calls are, and the hosts of models in all. */
import type { ComponentChildren } from "preact";
import { Panel, Shown, useData } from "../parts/data";
import { Facts, Figures } from "../parts/figures";
import { Count, Duration, lasting, sized } from "../parts/numbers";
import { link, route, withFilters } from "../parts/routing";
import type { Answer } from "../parts/session";
import { Table } from "../parts/table";
import { When } from "../parts/times";
import { UsedShare } from "./fleet";
import { inMilliseconds, Trends } from "./host_trends";

type Process = Answer<"/admin/system/processes", "get">["data"][number];
type Machine = Process["figures"];
type Known = number | null | undefined;

const SECONDS = 60;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const FUNCTIONS = new Set(["vercel", "lambda"]);
const SOURCES: Record<NonNullable<Machine["mem_source"]>, string> = {
  function: "of the function",
  container: "of the container",
  machine: "of the machine",
};

export const Processes = () => (
  <>
    <Throughput />
    <All />
    <Hosts />
  </>
);

function Throughput() {
  const loaded = useData("/admin/system/throughput", {}, SECONDS);
  return (
    <Panel title="Paid calls" aside={<span class="soft small">Rates of a minute, percentiles of five</span>}>
      <Shown loaded={loaded}>
        {(found) => (
          <Figures
            figures={[
              { name: "Requests a second", value: rateOf(found.req_per_sec) },
              {
                name: "Tokens a second",
                value: rateOf(found.generation_tokens_per_sec),
                note: `out; ${rateOf(found.prompt_tokens_per_sec)} in`,
              },
              {
                name: "Duration",
                value: <Duration ms={found.latency_p50_ms} />,
                note: within(found.latency_p95_ms),
              },
              {
                name: "First token",
                value: <Duration ms={found.ttft_p50_ms} />,
                note: within(found.ttft_p95_ms),
              },
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

const rateOf = (value: number): string => value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 2 : 0 });

const within = (ms: number | null): string | null => (ms === null ? null : `95 of 100 within ${lasting(ms)}`);

function All() {
  const loaded = useData("/admin/system/processes", {}, SECONDS);
  return (
    <Shown loaded={loaded}>
      {({ data }) => {
        const open = openOf(data);
        return (
          <div class="entry">
            <List rows={data} open={open} />
            {open && <Opened key={open.process} row={open} />}
          </div>
        );
      }}
    </Shown>
  );
}

/** The one that the address names, or the first: which one answers may change with each call. */
const openOf = (rows: Process[]): Process | undefined =>
  rows.find(({ process }) => process === route.value.filters.process) ?? rows[0];

function List({ rows, open }: { rows: Process[]; open: Process | undefined }) {
  return (
    <Panel title="Processes" aside={<span class="soft small">Seen in the last ten minutes</span>}>
      {rows.length ? (
        <Table
          caption="Processes"
          rows={rows}
          keyOf={({ process }) => process}
          link={({ process }) => withFilters({ process })}
          open={(row) => row === open}
          columns={[
            { name: "Process", of: (row) => <Name of={row} /> },
            { name: "Machine busy", of: ({ figures }) => percentOf(figures.cpu_util_pct), number: true },
            { name: "Process busy", of: ({ figures }) => percentOf(figures.process_cpu_pct), number: true, wide: true },
            { name: "Memory", of: ({ figures }) => <Memory of={figures} /> },
            { name: "Loop delay", of: ({ figures }) => <Delay ms={figures.loop_delay_ms} />, number: true },
            { name: "Disk", of: ({ figures }) => <Disk of={figures} />, wide: true },
            { name: "Version", of: ({ version }) => version ?? "–", wide: true },
            { name: "Started", of: ({ started_at }) => <When at={started_at} />, wide: true },
          ]}
        />
      ) : (
        <p class="soft">
          No process wrote a sample in the last ten minutes. Each does so once a minute, in the sweeper's round: look
          whether the sweeper runs.
        </p>
      )}
    </Panel>
  );
}

const Name = ({ of }: { of: Process }) => (
  <span class="group">
    <code class="cut short">{of.process}</code>
    {of.is_this && <span class="badge">answers you</span>}
    {isFunction(of) && <span class="badge">function</span>}
  </span>
);

const isFunction = ({ kind }: Process): boolean => FUNCTIONS.has(kind ?? "");

const percentOf = (value: Known): string => (value == null ? "–" : `${Math.round(value)}%`);

const times = (unit: number, size: Known): number | null => (size == null ? null : size * unit);

const Delay = ({ ms }: { ms: Known }) =>
  ms == null ? <span class="soft">–</span> : <data value={ms}>{inMilliseconds(ms)}</data>;

/** What is used, of which limit. */
const Memory = ({ of }: { of: Machine }) => (
  <span class="group">
    <UsedShare used={times(MIB, of.mem_used_mb)} total={times(MIB, of.mem_total_mb)} label="Memory" />
    {of.mem_total_mb !== null && (
      <span class="soft small nowrap">
        {sized(of.mem_total_mb * MIB)} {of.mem_source && SOURCES[of.mem_source]}
      </span>
    )}
  </span>
);

const Disk = ({ of }: { of: Machine }) => (
  <UsedShare used={times(GIB, of.disk_used_gb)} total={times(GIB, of.disk_total_gb)} label="Disk" />
);

function Opened({ row }: { row: Process }) {
  if (isFunction(row)) {
    return (
      <Panel title="Over time">
        <p class="soft">
          This installation runs as functions. A function lives only while it answers, so there is no trend of it: the
          figures are those of the moment in which the scheduler called the sweeper.
        </p>
      </Panel>
    );
  }
  const { figures } = row;
  return (
    <>
      <Trends
        whose={{ process: row.process }}
        totals={{ memory: times(MIB, figures.mem_total_mb), disk: times(GIB, figures.disk_total_gb) }}
        nothing="Too few samples were written in this period. Each process writes one a minute."
      />
      <Abilities process={row} />
    </>
  );
}

const NAMES: Record<string, string> = {
  kind: "Kind of host",
  os: "System",
  cpu_count: "Processors",
  is_container: "In a container",
  is_wsl: "In WSL",
  memory_limit_bytes: "Memory limit",
};

function Abilities({ process }: { process: Process }) {
  const loaded = useData("/admin/system/capabilities", { query: { process: process.process } });
  return (
    <Panel title="What it runs on">
      <Shown loaded={loaded}>
        {({ capabilities, prometheus }) => (
          <Facts
            facts={[
              ["Process", <code key="process">{process.process}</code>],
              ["Started", <When key="started" at={process.started_at} seconds />],
              ["Its memory", sizeOf(times(MIB, process.figures.process_mem_mb))],
              ...Object.entries(NAMES)
                .filter(([name]) => capabilities && name in capabilities)
                .map(([name, shown]): [string, ComponentChildren] => [shown, wordOf(name, capabilities?.[name])]),
              ...(prometheus ? [watchedBy(prometheus)] : []),
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

const sizeOf = (bytes: number | null): string => (bytes === null ? "–" : sized(bytes));

function wordOf(name: string, value: unknown): string {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (name === "memory_limit_bytes") return typeof value === "number" ? sized(value) : "none but the machine's";
  return String(value ?? "–");
}

type Prometheus = NonNullable<Answer<"/admin/system/capabilities", "get">["prometheus"]>;

const watchedBy = ({ is_up, instances, reason }: Prometheus): [string, ComponentChildren] => [
  "Watched by Prometheus",
  is_up ? instances.join(", ") || "no machine" : (reason ?? "Prometheus is down"),
];

function Hosts() {
  const loaded = useData("/admin/system/summary", {}, SECONDS);
  return (
    <Panel
      title="Hosts of models"
      aside={
        <a class="text" href={link("hosts")}>
          To the hosts
        </a>
      }
    >
      <Shown loaded={loaded}>
        {(found) =>
          found.hosts ? (
            <Figures
              figures={[
                { name: "Hosts", value: <Count of={found.hosts} />, note: `${found.hosts_seen} seen now` },
                {
                  name: "GPUs",
                  value: <Count of={found.gpus} />,
                  note: found.cuda_driver && `driver ${found.cuda_driver}`,
                },
                {
                  name: "Memory",
                  value: sizeOf(times(MIB, found.mem_used_mb)),
                  note: `of ${sizeOf(times(MIB, found.mem_total_mb))}`,
                },
                {
                  name: "Disk",
                  value: sizeOf(times(GIB, found.disk_used_gb)),
                  note: `of ${sizeOf(times(GIB, found.disk_total_gb))}`,
                },
                { name: "Processors", value: <Count of={found.cpu_count} /> },
              ]}
            />
          ) : (
            <p class="soft">No machine of your own runs models.</p>
          )
        }
      </Shown>
    </Panel>
  );
}
