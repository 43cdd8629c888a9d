/** Your own servers: whether they are well, and how calls reach them. */
import { useState } from "preact/hooks";
import { Icon, notify } from "../parts/basics";
import { Chart } from "../parts/chart";
import { Panel, Shown, useData } from "../parts/data";
import { Check, FinalDialog, FormDialog, Input, Select, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { Choice } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, counted, Duration, requestCount, Status } from "../parts/numbers";
import { go, link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { Side } from "../parts/side";
import { List, Table } from "../parts/table";
import { When } from "../parts/times";

type Row = Answer<"/admin/upstreams", "get">["data"][number];
type Preset = Answer<"/admin/upstreams/presets", "get">["data"][number];
/** What the fields of a form begin with. */
type Start = Partial<Row> & { example_url?: string };
type Asked = "create" | "edit" | "delete" | null;

const DIALECTS: [Row["dialect"], string][] = [
  ["vllm", "vLLM"],
  ["sglang", "SGLang"],
  ["llamacpp", "llama.cpp"],
  ["tgi", "Text Generation Inference"],
  ["openai", "Another with OpenAI's API"],
  ["openai-platform", "OpenAI"],
  ["azure-openai", "Azure OpenAI"],
  ["anthropic", "Anthropic"],
  ["groq", "Groq"],
  ["mistral", "Mistral"],
  ["together", "Together"],
];
export const SERVING_STATES: [string, string][] = [
  ["active", "Active"],
  ["disabled", "Disabled"],
];

export function Upstreams() {
  const { state, dialect, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/upstreams", { query: { state, dialect, sort, cursor, limit: 50 } }, 30);
  const [asked, ask] = useState<Asked>(null);
  return (
    <>
      <Heading title="Upstreams">
        <CheckNow />
        <button type="button" class="primary" onClick={() => ask("create")}>
          <Icon name="plus" /> Add an upstream
        </button>
      </Heading>
      <div class="filters">
        <Choice name="state" label="State" options={SERVING_STATES} />
        <Choice name="dialect" label="Server" options={DIALECTS} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Upstreams"
          nothing={
            <>
              <p>There is no server of your own. Requests go to OpenRouter.</p>
              <button type="button" onClick={() => ask("create")}>
                Add the first upstream
              </button>
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Name", of: (row) => row.name, sort: "name" },
            { name: "Address", of: (row) => <code class="cut">{row.base_url}</code>, wide: true },
            { name: "State", of: (row) => <Status of={row.state} /> },
            { name: "Health", of: (row) => (row.health ? <Status of={row.health.status} /> : "not checked") },
            { name: "Circuit breaker", of: (row) => (row.here ? <Status of={row.here.breaker} /> : "–"), wide: true },
            { name: "Running", of: (row) => <Count of={row.here?.in_flight} />, number: true, wide: true },
            { name: "Routes", of: (row) => <Count of={row.routes} />, number: true, wide: true },
          ]}
        />
      </Panel>
      {open && <OneUpstream id={open} asked={asked} ask={ask} />}
      {asked === "create" && <CreateDialog close={() => ask(null)} />}
    </>
  );
}

/** A vendor fills in what need not be looked up. Without one, it is a server of your own. */
function CreateDialog({ close }: { close: () => void }) {
  const loaded = useData("/admin/upstreams/presets");
  const [chosen, choose] = useState("");
  const presets = loaded.data?.data ?? [];
  const preset = presets.find((one) => one.preset === chosen);
  const submit = async (values: Values, idempotencyKey: string) => {
    const made = await change("post", "/admin/upstreams", { body: bodyOf(values), idempotencyKey });
    go(withFilters({ open: made.id }));
  };
  return (
    <FormDialog title="Add an upstream" action="Add" onClose={close} submit={submit}>
      <label class="field">
        <span>Vendor</span>
        <select value={chosen} onChange={(event) => choose(event.currentTarget.value)}>
          <option value="">None: a server of your own</option>
          {presets.map((one) => (
            <option key={one.preset} value={one.preset}>
              {one.title}
            </option>
          ))}
        </select>
      </label>
      {preset && (
        <p class="soft small">
          Serves {preset.endpoints.join(", ")} itself.{" "}
          <a class="text" href={preset.documentation} target="_blank" rel="noreferrer">
            Its documentation
          </a>
        </p>
      )}
      <Fields key={chosen} start={preset ? startOf(preset) : {}} />
    </FormDialog>
  );
}

const startOf = (preset: Preset): Start => ({
  name: preset.title,
  dialect: preset.dialect,
  secret_name: preset.secret_name,
  ...(preset.base_url ? { base_url: preset.base_url } : {}),
  ...(preset.example_url ? { example_url: preset.example_url } : {}),
});

/** Checks all upstreams, or the one given. */
function CheckNow({ row }: { row?: Row }) {
  const [busy, setBusy] = useState(false);
  const check = async () => {
    setBusy(true);
    const body = row ? { ids: [row.id] } : {};
    const { data } = await change("post", "/admin/upstreams/refresh-health", { body }).finally(() => setBusy(false));
    const down = data.filter(({ status }) => status === "down").length;
    notify(`${data.length} checked, ${down} down.`);
  };
  return (
    <button type="button" disabled={busy} onClick={() => void check()}>
      {busy ? "Checking…" : "Check health now"}
    </button>
  );
}

const path = (row: Row) => ({ path: { upstream_id: row.id } });

async function setState(row: Row, state: Row["state"]): Promise<void> {
  await change("patch", "/admin/upstreams/{upstream_id}", { ...path(row), body: { state } });
  notify(`${row.name} is ${state}.`, () => void setState(row, row.state));
}

function OneUpstream({ id, asked, ask }: { id: string; asked: Asked; ask: (asked: Asked) => void }) {
  const loaded = useData("/admin/upstreams/{upstream_id}", { path: { upstream_id: id } });
  const row = loaded.data;
  return (
    <Side title={row?.name ?? "Upstream"}>
      <Shown loaded={loaded}>
        {(found) => (
          <>
            <div class="actions start">
              <button type="button" onClick={() => ask("edit")}>
                Edit
              </button>
              <CheckNow row={found} />
              <button
                type="button"
                onClick={() => void setState(found, found.state === "active" ? "disabled" : "active")}
              >
                {found.state === "active" ? "Disable" : "Enable"}
              </button>
              <button type="button" class="danger" onClick={() => ask("delete")}>
                Delete
              </button>
            </div>
            <Facts facts={factsOf(found)} />
            <h3>Health checks</h3>
            <Checks checks={found.checks} />
          </>
        )}
      </Shown>
      <h3>Requests of the last 7 days</h3>
      <Requests id={id} />
      {row && <Dialogs row={row} asked={asked} close={() => ask(null)} />}
    </Side>
  );
}

function factsOf(row: Row): [string, preact.ComponentChildren][] {
  return [
    ["Id", <code key="id">{row.id}</code>],
    ["Address", <code key="address">{row.base_url}</code>],
    ["Server", DIALECTS.find(([dialect]) => dialect === row.dialect)?.[1] ?? row.dialect],
    ["State", <Status key="state" of={row.state} />],
    ["Circuit breaker", row.here ? <Status key="breaker" of={row.here.breaker} /> : "not used by this instance yet"],
    ...Object.entries(row.here?.breakers ?? {}).map(([model, breaker]): [string, preact.ComponentChildren] => [
      `for ${model}`,
      <Status key={model} of={breaker} />,
    ]),
    ["Last error", row.here?.last_error ?? "–"],
    ["Running requests", <Running key="running" row={row} />],
    ["Variable of its key", row.secret_name ? <Secret key="secret" row={row} /> : "none"],
    ["Takes keys of orgs", row.takes_org_keys ? "yes" : "no"],
    ["Connect within", `${row.connect_seconds} s`],
    ["First byte within", `${row.first_byte_seconds} s`],
    ["Pause at most", `${row.idle_seconds} s`],
    ["Health path", row.health_path ? <code key="health">{row.health_path}</code> : <code key="health">/models</code>],
    [
      "Routes",
      <a key="routes" class="text" href={link("models", { tab: "routes", upstream_id: row.id })}>
        {counted(row.routes)}
      </a>,
    ],
    ["Added", <When key="created" at={row.created_at} />],
  ];
}

const Running = ({ row }: { row: Row }) => (
  <>
    <Count of={row.here?.in_flight} />
    {row.concurrency !== null && ` of at most ${counted(row.concurrency)}`}
  </>
);

const Secret = ({ row }: { row: Row }) => (
  <>
    <code>{row.secret_name}</code>
    {row.secret_is_set === false && <span class="status bad">not set</span>}
  </>
);

type Checked = Answer<"/admin/upstreams/{upstream_id}", "get">["checks"];

function Checks({ checks }: { checks: Checked }) {
  if (!checks.length) return <p class="soft">None was made yet.</p>;
  return (
    <Table
      caption="Health checks"
      rows={checks}
      keyOf={({ probed_at }, index) => `${probed_at} ${index}`}
      columns={[
        { name: "Time", of: (one) => <When at={one.probed_at} seconds /> },
        { name: "Health", of: (one) => <Status of={one.status} /> },
        { name: "Took", of: (one) => <Duration ms={one.latency_ms} />, number: true },
        { name: "Error", of: (one) => one.error ?? (one.http_status ? `HTTP ${one.http_status}` : "–") },
      ]}
    />
  );
}

function Requests({ id }: { id: string }) {
  const loaded = useData("/admin/usage/series", { query: { upstream: id, hours: 168, bucket: "day" } });
  return (
    <Shown loaded={loaded}>
      {({ data }) => {
        const sum = (of: (point: (typeof data)[number]) => number) => data.reduce((all, point) => all + of(point), 0);
        const requests = sum((point) => point.requests);
        if (!requests) return <p class="soft">None went there.</p>;
        return (
          <Chart
            title="Requests a day (UTC)"
            summary={`${requestCount(requests)}, ${counted(sum((point) => point.errors))} failed.`}
            times={data.map(({ start }) => start)}
            bucket="day"
            lines={[
              { name: "Failed", values: data.map((point) => point.errors) },
              { name: "Succeeded", values: data.map((point) => point.requests - point.errors) },
            ]}
            written={counted}
          />
        );
      }}
    </Shown>
  );
}

function Dialogs({ row, asked, close }: { row: Row; asked: Asked; close: () => void }) {
  if (asked === "edit") {
    const submit = (values: Values) =>
      change("patch", "/admin/upstreams/{upstream_id}", { ...path(row), body: bodyOf(values) });
    return (
      <FormDialog title={`Edit ${row.name}`} action="Save" onClose={close} submit={submit}>
        <Fields start={row} />
      </FormDialog>
    );
  }
  if (asked === "delete") {
    const submit = async (values: Values) => {
      const query = { routes: values.checked("routes") };
      await change("delete", "/admin/upstreams/{upstream_id}", { ...path(row), query });
      go(withFilters({ open: "" }));
    };
    return (
      <FinalDialog title={`Delete ${row.name}`} action="Delete" name={row.name} onClose={close} submit={submit}>
        <p>Requests no longer go there. This cannot be undone. Past requests keep the id {row.id}.</p>
        {row.routes > 0 && <Check label={`Delete its ${counted(row.routes)} routes as well`} name="routes" />}
      </FinalDialog>
    );
  }
  return null;
}

const shown = (value: number | null | undefined): string => value?.toString() ?? "";

function Fields({ start }: { start: Start }) {
  return (
    <>
      <Input label="Name" name="name" required maxLength={200} defaultValue={start.name ?? ""} />
      <Input
        label="Address"
        name="base_url"
        type="url"
        required
        placeholder={start.example_url ?? "http://10.0.0.5:8000/v1"}
        defaultValue={start.base_url ?? ""}
      />
      <div class="pair">
        <Select label="Server" name="dialect" options={DIALECTS} defaultValue={start.dialect ?? "vllm"} />
        <Input
          label="Calls at a time, of an instance"
          name="concurrency"
          type="number"
          min={1}
          placeholder="No limit"
          defaultValue={shown(start.concurrency)}
        />
      </div>
      <Input
        label="Environment variable of its key"
        name="secret_name"
        placeholder="UPSTREAM_GPU_1_KEY"
        spellcheck={false}
        hint="Empty for a server without a key. The key itself is never stored."
        defaultValue={start.secret_name ?? ""}
      />
      <div class="pair">
        <Input
          label="Connect within (s)"
          name="connect_seconds"
          type="number"
          step="any"
          min={0}
          placeholder="Default"
          defaultValue={shown(start.connect_seconds)}
        />
        <Input
          label="First byte within (s)"
          name="first_byte_seconds"
          type="number"
          step="any"
          min={0}
          placeholder="Default"
          defaultValue={shown(start.first_byte_seconds)}
        />
      </div>
      <div class="pair">
        <Input
          label="Pause at most (s)"
          name="idle_seconds"
          type="number"
          step="any"
          min={0}
          placeholder="Default"
          defaultValue={shown(start.idle_seconds)}
        />
        <Input label="Health path" name="health_path" placeholder="/models" defaultValue={start.health_path ?? ""} />
      </div>
      <Check
        label="Orgs may store keys of their own for it"
        name="takes_org_keys"
        hint="Their calls then cost only the fee. Only for a server that checks keys."
        defaultChecked={start.takes_org_keys ?? false}
      />
    </>
  );
}

const SECONDS = ["connect_seconds", "first_byte_seconds", "idle_seconds"];

/** Seconds that were left empty are not sent, so that they keep their value or get the default. */
function bodyOf(values: Values): Record<string, unknown> {
  const seconds = SECONDS.map((name) => [name, values.number(name)]).filter(([, value]) => value !== null);
  return {
    name: values.text("name"),
    base_url: values.text("base_url"),
    dialect: values.text("dialect"),
    secret_name: values.optional("secret_name"),
    concurrency: values.number("concurrency"),
    health_path: values.optional("health_path"),
    takes_org_keys: values.checked("takes_org_keys"),
    ...Object.fromEntries(seconds),
  };
}
