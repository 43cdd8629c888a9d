/** One host: what it has, how it was in the last day, its models and its files. */
import { useState } from "preact/hooks";
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { FinalDialog, FormDialog, Input, Lines, type Values } from "../parts/dialogs";
import { codes, Facts, Figures } from "../parts/figures";
import { Heading } from "../parts/frame";
import { Count, sizedRate } from "../parts/numbers";
import { go, link } from "../parts/routing";
import { change } from "../parts/session";
import { Table } from "../parts/table";
import { openTab, type Tab, Tabs } from "../parts/tabs";
import { When } from "../parts/times";
import { DeploymentList } from "./deployment_list";
import { EnrolDialog, type Enrolled, enrolAgain } from "./enrolment";
import { Contact, capabilitiesOf, engineName, type Host, pairOf, Used } from "./fleet";
import { Files } from "./host_files";
import { Trends } from "./host_trends";

const TABS: Tab[] = [
  ["", "Overview"],
  ["models", "Models"],
  ["files", "Files"],
];

type Asked = "edit" | "rotate" | "retire" | "delete" | null;
const at = ({ id }: Host) => ({ path: { host_id: id } });

export function OneHost({ id }: { id: string }) {
  const loaded = useData("/admin/hosts/{host_id}", { path: { host_id: id } }, 30);
  return (
    <Shown loaded={loaded}>
      {(host) => (
        <div class="entry">
          <Head host={host} />
          {host.contact === "unseen" && host.state !== "retired" && <Silent host={host} />}
          <Tabs tabs={TABS} label="Host" />
          {openTab() === "models" ? (
            <Panel>
              <DeploymentList hostId={host.id} />
            </Panel>
          ) : openTab() === "files" ? (
            <Files host={host} />
          ) : (
            <Overview host={host} />
          )}
        </div>
      )}
    </Shown>
  );
}

const Silent = ({ host }: { host: Host }) => (
  <div class="problem" role="status">
    <strong>The agent does not call</strong>
    <p>
      It called last at <When at={host.last_seen_at} seconds />. What runs on the host is left as it is: its engines go
      on, and calls still reach them where the ingress answers. Nothing is started elsewhere. Look at the agent on the
      machine.
    </p>
  </div>
);

async function cordon(host: Host, cordoned: boolean): Promise<void> {
  await (cordoned
    ? change("post", "/admin/hosts/{host_id}/cordon", at(host))
    : change("post", "/admin/hosts/{host_id}/uncordon", at(host)));
  notify(cordoned ? `${host.name} gets no new calls.` : `${host.name} gets calls again.`, () => {
    void cordon(host, !cordoned);
  });
}

function Head({ host }: { host: Host }) {
  const [asked, ask] = useState<Asked>(null);
  const [enrolled, show] = useState<{ given: Enrolled; before: string | null } | null>(null);
  const enrol = async (rotate: boolean) => {
    const given = await enrolAgain(host.id, rotate);
    show({ given, before: given.enrolled_at });
  };
  return (
    <>
      <Heading
        title={
          <>
            {host.name} <Contact host={host} />
          </>
        }
      >
        {host.state !== "retired" && (
          <>
            <a class="button" href={link("deployments/new", { host_id: host.id })}>
              Add a model
            </a>
            <button type="button" onClick={() => ask("edit")}>
              Edit
            </button>
            <button type="button" onClick={() => void cordon(host, host.state === "active")}>
              {host.state === "active" ? "Cordon" : "Uncordon"}
            </button>
            <button type="button" onClick={() => void enrol(false)}>
              New command
            </button>
            <button type="button" class="danger" onClick={() => ask("rotate")}>
              Replace the key
            </button>
            <button type="button" class="danger" onClick={() => ask("retire")}>
              Retire
            </button>
          </>
        )}
        {(host.state === "retired" || host.contact === "never") && (
          <button type="button" class="danger" onClick={() => ask("delete")}>
            Delete
          </button>
        )}
      </Heading>
      {asked === "edit" && <EditDialog host={host} close={() => ask(null)} />}
      {asked === "rotate" && (
        <FinalDialog
          title={`Replace the key of ${host.name}`}
          action="Replace"
          name={host.name}
          onClose={() => ask(null)}
          submit={() => enrol(true)}
        >
          <p>
            The key ends at once: the agent is refused, and calls no longer reach its models, until the machine has run
            a new command. For a key that leaked.
          </p>
        </FinalDialog>
      )}
      {asked === "retire" && (
        <FinalDialog
          title={`Retire ${host.name}`}
          action="Retire"
          name={host.name}
          onClose={() => ask(null)}
          submit={() => change("post", "/admin/hosts/{host_id}/retire", at(host))}
        >
          <p>
            Its key is refused from now on, and its models are no longer offered. This cannot be undone. Its history
            stays.
          </p>
        </FinalDialog>
      )}
      {asked === "delete" && (
        <FinalDialog
          title={`Delete ${host.name}`}
          action="Delete"
          name={host.id}
          onClose={() => ask(null)}
          submit={async () => {
            await change("delete", "/admin/hosts/{host_id}", { ...at(host), query: { confirm: host.id } });
            go(link("hosts"));
            notify(`${host.name} is deleted.`);
          }}
        >
          <p>Its models, which must be stopped, are deleted with it. What was charged and what was done stays.</p>
        </FinalDialog>
      )}
      {enrolled && <EnrolDialog {...enrolled} close={() => show(null)} />}
    </>
  );
}

function EditDialog({ host, close }: { host: Host; close: () => void }) {
  const submit = (values: Values) =>
    change("patch", "/admin/hosts/{host_id}", {
      ...at(host),
      body: {
        name: values.text("name"),
        ingress_url: values.optional("ingress_url"),
        labels: Object.fromEntries((values.list("labels") ?? []).map(pairOf)),
      },
    });
  const labels = Object.entries(host.labels).map(([name, value]) => `${name}=${value}`);
  return (
    <FormDialog title={`Edit ${host.name}`} action="Save" onClose={close} submit={submit}>
      <Input label="Name" name="name" required maxLength={200} defaultValue={host.name} />
      <Input
        label="Address of its ingress"
        name="ingress_url"
        type="url"
        defaultValue={host.ingress_url ?? ""}
        hint="Empty: what the agent says."
      />
      <Lines label="Labels" name="labels" placeholder="rack=b4" defaultValue={labels.join("\n")} hint="One a line." />
    </FormDialog>
  );
}

const Overview = ({ host }: { host: Host }) => (
  <>
    <Panel>
      <Figures figures={figuresOf(host)} />
    </Panel>
    {capabilitiesOf(host).gpus.length > 0 && (
      <Panel title="GPUs">
        <Gpus host={host} />
      </Panel>
    )}
    <Trends
      whose={{ host_id: host.id }}
      totals={{ memory: host.sample?.memory_total_bytes, disk: host.sample?.disk_total_bytes }}
      nothing="Too few figures were sent in this period. The agent sends them once a minute."
    />
    <Panel title="What it has and allows">
      <Facts facts={factsOf(host)} />
    </Panel>
  </>
);

function figuresOf({ sample, running, models }: Host) {
  const { cpu_percent: cpu, load_1m: load } = sample ?? {};
  const { network_received_bps: received, network_sent_bps: sent } = sample ?? {};
  return [
    {
      name: "Processor",
      value: cpu == null ? "–" : `${cpu.toFixed(0)}%`,
      note: load == null ? undefined : `load ${load.toFixed(1)}`,
    },
    {
      name: "Memory",
      value: <Used used={sample?.memory_used_bytes} total={sample?.memory_total_bytes} label="Memory" />,
    },
    { name: "Disk", value: <Used used={sample?.disk_used_bytes} total={sample?.disk_total_bytes} label="Disk" /> },
    {
      name: "Network",
      value: received == null ? "–" : `${sizedRate(received)} in`,
      note: sent == null ? undefined : `${sizedRate(sent)} out`,
    },
    { name: "Models", value: <Count of={running} />, note: `of ${models} run` },
  ];
}

function Gpus({ host }: { host: Host }) {
  const now = new Map(host.sample?.gpus?.map((gpu) => [gpu.index, gpu]));
  return (
    <Table
      caption="GPUs"
      rows={capabilitiesOf(host).gpus}
      keyOf={({ index }) => String(index)}
      columns={[
        { name: "GPU", of: ({ index, name }) => `${index}: ${name || "unnamed"}` },
        {
          name: "Memory",
          of: ({ index, memory_total_bytes: total }) => (
            <Used
              used={now.get(index)?.memory_used_bytes}
              total={now.get(index)?.memory_total_bytes || total}
              label={`Memory of GPU ${index}`}
            />
          ),
        },
        { name: "Busy", of: ({ index }) => shown(now.get(index)?.utilization_percent, "%"), number: true },
        {
          name: "Temperature",
          of: ({ index }) => shown(now.get(index)?.temperature_c, " °C"),
          number: true,
          wide: true,
        },
        { name: "Compute capability", of: (gpu) => gpu.compute_capability ?? "–", number: true, wide: true },
      ]}
    />
  );
}

const shown = (value: number | null | undefined, unit: string): string =>
  value === null || value === undefined ? "–" : `${value.toFixed(0)}${unit}`;

const listed = (all: string[], none: string) => codes(all.length ? all : null, none);

function factsOf(host: Host): [string, preact.ComponentChildren][] {
  const said = capabilitiesOf(host);
  return [
    ["Id", <code key="id">{host.id}</code>],
    ["Ingress", host.ingress_url ? <code key="ingress">{host.ingress_url}</code> : "none: its models get no calls"],
    ["Engines on its PATH", said.engines.map(engineName).join(", ") || "none"],
    ["Containers", said.containers ?? "neither docker nor podman"],
    ["Folders that may be read", listed(said.roots, "not known yet")],
    ["Images that may run", listed(said.images, "none")],
    ["Commands that may run", listed(said.commands, "none")],
    ["Further flags of engines", listed(said.flags, "none")],
    ["System", said.system ? `${said.system}, ${said.cpus ?? "?"} processors` : "–"],
    ["Version of the agent", host.agent_version ?? "–"],
    [
      "Labels",
      listed(
        Object.entries(host.labels).map((pair) => pair.join("=")),
        "none",
      ),
    ],
    ["Last call", <When key="seen" at={host.last_seen_at} seconds />],
    ["Enrolled", <When key="enrolled" at={host.enrolled_at} />],
    ["Created", <When key="created" at={host.created_at} />],
    [
      "History",
      <a key="history" class="text" href={link("audit", { target_id: host.id })}>
        what operators did
      </a>,
    ],
  ];
}
