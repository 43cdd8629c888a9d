/** One model on a host: what it does now, its log, what it runs, and what was done with it. */
import { useState } from "preact/hooks";
import { asProblem, type Problem } from "../parts/api";
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Facts, Figures } from "../parts/figures";
import { Heading } from "../parts/frame";
import { perMillion } from "../parts/money";
import { Count, Duration, lasting, percent, Status } from "../parts/numbers";
import { ProblemBox } from "../parts/problems";
import { link, linkTo } from "../parts/routing";
import { change, send } from "../parts/session";
import { List } from "../parts/table";
import { openTab, type Tab, Tabs } from "../parts/tabs";
import { When } from "../parts/times";
import { DeleteDialog, OfferDialog } from "./deployment_dialogs";
import { Log } from "./deployment_log";
import { SpecPage } from "./deployment_spec";
import { Contact, type Deployment, Diagnosed, Download, engineName, isMoving, namesOf, pauseFor } from "./fleet";

const TABS: Tab[] = [
  ["", "Overview"],
  ["log", "Log"],
  ["spec", "Spec and dry-run"],
  ["history", "History"],
];

type Asked = "offer" | "delete" | null;
const at = ({ id }: Deployment) => ({ path: { deployment_id: id } });

export function OneDeployment({ id }: { id: string }) {
  const loaded = useData("/admin/models/{deployment_id}", { path: { deployment_id: id } }, (found) =>
    found ? pauseFor([found]) : 0,
  );
  return (
    <Shown loaded={loaded}>
      {(row) => (
        <div class="entry">
          <Head row={row} />
          <Tabs tabs={TABS} label="Model" />
          <Section row={row} />
        </div>
      )}
    </Shown>
  );
}

function Section({ row }: { row: Deployment }) {
  const tab = openTab();
  if (tab === "log") return <Log row={row} />;
  if (tab === "spec") return <SpecPage key={row.generation} row={row} />;
  if (tab === "history") return <History row={row} />;
  return <Overview row={row} />;
}

async function start(row: Deployment, wanted: "running" | "on_demand" = "running"): Promise<void> {
  await change("post", "/admin/models/{deployment_id}/start", { ...at(row), body: { wanted } });
  notify(wanted === "running" ? `${row.name} is starting.` : `${row.name} is loaded by its first call.`);
}

/** Undo asks for what was asked before. */
async function stop(row: Deployment): Promise<void> {
  await change("post", "/admin/models/{deployment_id}/stop", at(row));
  const { wanted } = row;
  notify(`${row.name} is stopping, after its calls.`, wanted === "stopped" ? undefined : () => void start(row, wanted));
}

async function apply(row: Deployment): Promise<void> {
  await change("post", "/admin/models/{deployment_id}/apply", at(row));
  notify(`${row.name} starts again with its newest spec.`);
}

async function archive(row: Deployment, archived: boolean): Promise<void> {
  await (archived
    ? change("post", "/admin/models/{deployment_id}/archive", at(row))
    : change("patch", "/admin/models/{deployment_id}", { ...at(row), body: { archived: false } }));
  notify(archived ? `${row.name} is archived.` : `${row.name} is back.`, () => void archive(row, !archived));
}

function Head({ row }: { row: Deployment }) {
  const [asked, ask] = useState<Asked>(null);
  const isStopped = row.wanted === "stopped";
  return (
    <>
      <Heading
        title={
          <>
            {row.name} <Status of={row.phase} />
          </>
        }
      >
        {!row.archived && (
          <>
            {isStopped ? (
              <>
                <button type="button" class="primary" onClick={() => void start(row)}>
                  Start
                </button>
                <button type="button" onClick={() => void start(row, "on_demand")}>
                  Load on demand
                </button>
              </>
            ) : (
              <>
                <button type="button" onClick={() => void stop(row)}>
                  Stop
                </button>
                <button type="button" onClick={() => void apply(row)}>
                  {row.generation > row.applied_generation ? "Apply the new spec" : "Start again"}
                </button>
              </>
            )}
            <button type="button" onClick={() => ask("offer")}>
              Price and limits
            </button>
          </>
        )}
        <button type="button" onClick={() => void archive(row, !row.archived)}>
          {row.archived ? "Take out of the archive" : "Archive"}
        </button>
        {isStopped && (
          <button type="button" class="danger" onClick={() => ask("delete")}>
            Delete
          </button>
        )}
      </Heading>
      {asked === "offer" && <OfferDialog row={row} close={() => ask(null)} />}
      {asked === "delete" && <DeleteDialog row={row} close={() => ask(null)} />}
    </>
  );
}

const Overview = ({ row }: { row: Deployment }) => (
  <>
    <Panel title="Now" aside={<Test row={row} />}>
      <Now row={row} />
    </Panel>
    {row.metrics && (
      <Panel title="Its engine">
        <Figures figures={figuresOf(row.metrics)} />
      </Panel>
    )}
    <Panel title="What it is">
      <Facts facts={factsOf(row)} />
    </Panel>
  </>
);

function Now({ row }: { row: Deployment }) {
  return (
    <div class="now" role="status">
      <p>
        <Status of={row.phase} />
        {row.phase_since && (
          <span class="soft">
            {" "}
            since <When at={row.phase_since} seconds />
          </span>
        )}
        <span class="soft"> · wanted: {row.wanted.replace("_", " ")}</span>
        {isMoving(row) && <span class="waiting"> · the host works on it</span>}
      </p>
      {row.phase === "downloading" && <Download progress={row.progress} />}
      {row.host.contact !== "seen" && (
        <p>
          <Contact host={row.host} /> <span class="soft">The host does not call: this is what it said last.</span>
        </p>
      )}
      {row.detail && <p>{row.detail}</p>}
      {row.diagnosis && <Diagnosed of={row.diagnosis} />}
      {row.phase === "failed" && (
        <p class="soft">
          {row.failures} {row.failures === 1 ? "failure" : "failures"} in a row.{" "}
          {row.retry_at ? (
            <>
              It is tried again at <When at={row.retry_at} seconds />.
            </>
          ) : (
            "It is not tried again until its spec is changed or it is started again."
          )}{" "}
          <a class="text" href={link(`deployments/${row.id}/log`)}>
            Its log
          </a>
        </p>
      )}
      <Readiness key={`${row.phase} ${row.offered_as}`} row={row} />
    </div>
  );
}

const WORDS = {
  ready: "It takes calls",
  loading: "It does not take calls yet",
  stopped: "It takes no calls",
  error: "It takes no calls",
};

function Readiness({ row }: { row: Deployment }) {
  const loaded = useData("/admin/models/{deployment_id}/readiness", at(row));
  const found = loaded.data;
  return (
    found && (
      <p class="soft">
        {[WORDS[found.status], found.detail !== row.detail && found.detail].filter(Boolean).join(". ")}
      </p>
    )
  );
}

/** A small request past the books. */
function Test({ row }: { row: Deployment }) {
  const [busy, setBusy] = useState(false);
  const [told, tell] = useState<string | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const test = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const found = await send("post", "/admin/models/{deployment_id}/test", at(row));
      const took = found.latency_ms ? ` in ${lasting(found.latency_ms)}` : "";
      tell(found.success ? `The engine answered${took}.` : `The test failed: ${found.error ?? "no reason was given"}`);
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  return (
    <div class="group">
      <span role="status" class="small">
        {told}
      </span>
      <button type="button" disabled={busy || row.phase !== "running"} onClick={() => void test()}>
        {busy ? "Testing…" : "Test"}
      </button>
      {row.offered_as.length > 0 && (
        <a class="button" href="ui">
          Playground
        </a>
      )}
      {problem && <ProblemBox problem={problem} title="The test could not be made" />}
    </div>
  );
}

const figuresOf = (of: NonNullable<Deployment["metrics"]>) => [
  { name: "Requests running", value: <Count of={of.requests_running} />, note: `${of.in_flight ?? 0} in flight here` },
  { name: "Requests waiting", value: <Count of={of.requests_waiting} /> },
  {
    name: "First token",
    value: <Duration ms={of.ttft_p50_ms} />,
    note: of.ttft_p95_ms == null ? undefined : `${lasting(of.ttft_p95_ms)} at the 95th percentile`,
  },
  {
    name: "Whole answer",
    value: <Duration ms={of.latency_p50_ms} />,
    note: of.latency_p95_ms == null ? undefined : `${lasting(of.latency_p95_ms)} at the 95th percentile`,
  },
  {
    name: "Tokens since its start",
    value: <Count of={of.generation_tokens_total} />,
    note: (
      <>
        of <Count of={of.prompt_tokens_total} /> in prompts
      </>
    ),
  },
  { name: "KV cache in use", value: of.cache_usage == null ? "–" : percent(of.cache_usage, 1) },
];

function factsOf(row: Deployment): [string, preact.ComponentChildren][] {
  const { spec } = row;
  return [
    ["Id", <code key="id">{row.id}</code>],
    [
      "Host",
      <a key="host" class="text" href={linkTo("hosts", row.host_id)}>
        {row.host.name}
      </a>,
    ],
    ["Engine", engineName(row.engine)],
    ["Files", <code key="source">{spec.source.type === "hub" ? spec.source.repo_id : spec.source.path}</code>],
    ["Clients call it", namesOf(row)],
    ["Price", priceOf(row)],
    [
      "Generation",
      `${row.generation} written, ${row.applied_generation} asked for, ${row.running_generation ?? "none"} seen`,
    ],
    ["Loaded in", measuredOf(row, "loading_seconds", (seconds) => lasting(seconds * 1000))],
    ["Memory as measured", measuredOf(row, "memory_gib", (gib) => `${gib.toFixed(2)} GiB`)],
    ["Version of the engine", typeof row.measured?.engine_version === "string" ? row.measured.engine_version : "–"],
    [
      "Upstream",
      row.upstream_id ? (
        <a key="upstream" class="text" href={link("usage", { upstream: row.upstream_id, hours: "168" })}>
          its requests
        </a>
      ) : (
        "none before it ran"
      ),
    ],
    ["Started", <When key="started" at={row.last_started_at} />],
    ["Stopped", <When key="stopped" at={row.last_stopped_at} />],
    ["Seen", <When key="seen" at={row.observed_at} seconds />],
  ];
}

function measuredOf({ measured }: Deployment, name: string, written: (value: number) => string): string {
  const value = measured?.[name];
  return typeof value === "number" ? written(value) : "–";
}

function priceOf({ pricing, kind }: Deployment): string {
  if (!pricing) return "none";
  const of = (name: string) => perMillion(pricing[name] as string | undefined) ?? "–";
  if (kind === "transcription") return `${pricing.second ?? 0} a second`;
  return kind === "speech"
    ? `${of("character")} a million characters`
    : `${of("prompt")} in, ${of("completion")} out, a million tokens`;
}

const History = ({ row }: { row: Deployment }) => (
  <>
    <Phases key={row.phase_since} row={row} />
    <Steps row={row} />
  </>
);

/** The last changes of its phase. */
function Phases({ row }: { row: Deployment }) {
  const loaded = useData("/admin/models/{deployment_id}/phases", { ...at(row), query: { limit: 200 } });
  return (
    <Panel title="Its phases">
      <List
        loaded={loaded}
        caption="Changes of its phase"
        nothing={<p>It was always stopped.</p>}
        keyOf={({ id }) => id}
        columns={[
          { name: "Time", of: (one) => <When at={one.changed_at} seconds /> },
          { name: "Before", of: (one) => <Status of={one.before} />, wide: true },
          { name: "Phase", of: (one) => <Status of={one.phase} /> },
          { name: "Why", of: (one) => <span class="cut">{one.why}</span> },
          { name: "Wanted by", of: (one) => <span class="cut">{one.asked_by ?? "–"}</span>, wide: true },
        ]}
      />
    </Panel>
  );
}

/** What operators did with it. */
function Steps({ row }: { row: Deployment }) {
  const query = { target_id: row.id, hours: 720, limit: 50 };
  const loaded = useData("/admin/audit-logs", { query });
  return (
    <Panel title="What was done with it, in 30 days">
      <List
        loaded={loaded}
        caption="What was done"
        nothing={<p>Nothing was done in this time.</p>}
        keyOf={({ id }) => id}
        link={({ id }) => link("audit", { open: id, target_id: row.id })}
        columns={[
          { name: "Time", of: (one) => <When at={one.occurred_at} seconds /> },
          { name: "Action", of: (one) => <code>{one.action}</code> },
          { name: "Outcome", of: (one) => <Status of={one.outcome} /> },
          { name: "By", of: ({ actor }) => <span class="cut">{actor.user_id ?? actor.name ?? "–"}</span>, wide: true },
        ]}
      />
    </Panel>
  );
}
