/** Whether everything works: health, books, database and the settings in force. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { asProblem, type Problem } from "../parts/api";
import { Panel, Shown, useData } from "../parts/data";
import { Facts, Figures } from "../parts/figures";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, counted, Duration, lasting, Status, sized } from "../parts/numbers";
import { ProblemBox } from "../parts/problems";
import { route } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { Nothing, Table } from "../parts/table";
import { FilterTabs } from "../parts/tabs";
import { When } from "../parts/times";
import { Backups } from "./backups";
import { Processes } from "./processes";

const TABS: [string, string][] = [
  ["", "Health and books"],
  ["processes", "Processes"],
  ["database", "Database"],
  ["backups", "Backups"],
  ["settings", "Settings"],
];

export function System() {
  const { tab } = route.value.filters;
  return (
    <>
      <Heading title="System" />
      <FilterTabs tabs={TABS} label="System" />
      {SECTIONS[tab ?? ""]?.() ?? <HealthAndBooks />}
    </>
  );
}

const SECTIONS: Record<string, () => ComponentChildren> = {
  processes: () => <Processes />,
  database: () => <Database />,
  backups: () => <Backups />,
  settings: () => <Settings />,
};

const HealthAndBooks = () => (
  <>
    <Health />
    <Books />
    <Versions />
  </>
);

function Health() {
  const loaded = useData("/health", {}, 30);
  return (
    <Panel title="Health">
      <Shown loaded={loaded}>
        {(found) => (
          <Figures
            figures={[
              { name: "Tollgate", value: <Status of={found.status} />, note: `version ${found.version}` },
              { name: "Database", value: <Status of={found.database} /> },
              { name: "OpenRouter", value: <Status of={found.openrouter.replaceAll("_", " ")} /> },
              { name: "Users", value: <Count of={found.user_count} /> },
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

type Audited = Answer<"/admin/audit", "post">;

function Books() {
  const [busy, setBusy] = useState(false);
  const [found, setFound] = useState<Audited | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const audit = async (books?: true) => {
    setBusy(true);
    setProblem(null);
    try {
      setFound(await change("post", "/admin/audit", { body: books ? { books } : {} }));
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  return (
    <Panel
      title="Books"
      aside={
        <button type="button" disabled={busy} onClick={() => void audit()}>
          {busy ? "Auditing…" : "Audit now"}
        </button>
      }
    >
      <div aria-live="polite">
        {problem ? (
          <ProblemBox problem={problem} title="The audit failed" />
        ) : found ? (
          <Result found={found} anyway={() => void audit(true)} />
        ) : (
          <p class="soft">An audit proves that ledger, balances, holds and requests agree, from the tables alone.</p>
        )}
      </div>
    </Panel>
  );
}

function Result({ found, anyway }: { found: Audited; anyway: () => void }) {
  if (!found.audited) {
    return (
      <>
        <p>
          <b>Not audited.</b> {found.reason}
        </p>
        <button type="button" onClick={anyway}>
          Audit all the same
        </button>
      </>
    );
  }
  return (
    <>
      <p>
        {found.agree ? (
          <span class="status good">The books agree</span>
        ) : (
          <span class="status bad">{counted(found.fault_count ?? 0)} faults were found</span>
        )}{" "}
        <span class="soft">
          <When at={found.at} seconds />
        </span>
      </p>
      <Facts
        facts={[
          ["Orgs", <Count key="orgs" of={found.orgs} />],
          ["Transfers", <Count key="transfers" of={found.transfers} />],
          ["Requests", <Count key="requests" of={found.requests} />],
          ["Open holds", <Count key="holds" of={found.open_holds} />],
        ]}
      />
      {found.faults.length > 0 && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must take the focus
        <pre class="code" tabIndex={0}>
          {JSON.stringify(found.faults, null, 1)}
        </pre>
      )}
    </>
  );
}

function Versions() {
  const loaded = useData("/admin/system/settings");
  return (
    <Panel title="Versions">
      <Shown loaded={loaded}>
        {(found) => (
          <Facts
            facts={[
              ["Tollgate", found.version],
              [
                "Schema",
                found.schema_version === found.needed_schema_version
                  ? found.schema_version
                  : `${found.schema_version}, but ${found.needed_schema_version} is needed: run the migrations`,
              ],
              ["Python", found.python_version],
              ["Postgres", found.postgres_version],
              ["Database", found.database],
              ["Host", found.host],
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

const SOURCES: [string, string][] = [
  ["changed", "Not the default"],
  ["secret", "Secrets"],
];

type Setting = Answer<"/admin/system/settings", "get">["settings"][number];

/** All of them come in one answer, so the filters work here. */
function matches(setting: Setting): boolean {
  const { q = "", only } = route.value.filters;
  const wanted = q.toLowerCase();
  const found = [setting.name, setting.description].some((text) => text.toLowerCase().includes(wanted));
  if (only === "secret") return found && setting.is_secret;
  return found && (only !== "changed" || (setting.is_set && setting.value !== setting.default));
}

function Settings() {
  const loaded = useData("/admin/system/settings");
  return (
    <>
      <div class="filters">
        <Search label="Find a setting" />
        <Choice name="only" label="Show" options={SOURCES} />
      </div>
      <Panel title="Settings in force" aside={<span class="soft small">Of the instance that answered</span>}>
        <Shown loaded={loaded}>
          {({ settings }) => {
            const rows = settings.filter(matches);
            return rows.length ? <SettingTable rows={rows} /> : <Nothing>There are no settings.</Nothing>;
          }}
        </Shown>
      </Panel>
    </>
  );
}

const SettingTable = ({ rows }: { rows: Setting[] }) => (
  <Table
    caption="Settings"
    rows={rows}
    keyOf={({ name }) => name}
    columns={[
      { name: "Setting", of: (one) => <code>{one.name}</code> },
      { name: "Value", of: (one) => <Value of={one} /> },
      { name: "Meaning", of: (one) => <Prose text={one.description} />, wide: true },
    ]}
  />
);

/** A text with `code` in it. */
const Prose = ({ text }: { text: string }) => (
  <span class="prose">{text.split("`").map((part, at) => (at % 2 ? <code key={part}>{part}</code> : part))}</span>
);

function Value({ of }: { of: Setting }) {
  if (of.is_secret) return <span class={`status ${of.is_set ? "good" : ""}`}>{of.is_set ? "set" : "not set"}</span>;
  if (!of.value) return <span class="soft">{of.value === null ? "none" : "empty"}</span>;
  const changed = of.is_set && of.value !== of.default;
  return (
    <>
      <code class="prose">{of.value}</code>
      {changed && <span class="soft small"> default: {of.default ?? "none"}</span>}
    </>
  );
}

type Found = Answer<"/admin/system/database", "get">;

function Database() {
  const loaded = useData("/admin/system/database");
  return (
    <Shown loaded={loaded}>
      {(found) => (
        <>
          <Panel title="Database">
            <Figures figures={figuresOf(found)} />
          </Panel>
          <Slowest found={found} />
          <Indexes found={found} />
          <Tables found={found} />
        </>
      )}
    </Shown>
  );
}

function figuresOf(found: Found) {
  const { connections, oldest_transaction: oldest, last_backup: backup } = found;
  return [
    {
      name: "Size",
      value: sized(found.sizes.database_bytes),
      note: `tables ${sized(found.sizes.tables_bytes)}, indexes ${sized(found.sizes.indexes_bytes)}`,
    },
    {
      name: "Connections",
      value: counted(connections.used),
      note: `of ${counted(connections.most)}; ${counted(connections.used_here)} to this database`,
    },
    {
      name: "Oldest transaction",
      value: oldest ? lasting(oldest.seconds * 1000) : "none",
      note: oldest ? `process ${oldest.pid}, ${oldest.state ?? "unknown"}` : undefined,
    },
    {
      name: "Last backup",
      value: <When at={backup.archived_at} />,
      note: backup.reason ?? undefined,
    },
    { name: "Postgres", value: found.server_version, note: `schema ${found.schema_version}` },
  ];
}

function Slowest({ found }: { found: Found }) {
  const { functions, reason } = found.slowest;
  return (
    <Panel title="Slowest functions">
      {functions?.length ? (
        <Table
          caption="Slowest functions"
          rows={functions}
          keyOf={(row) => row.function}
          columns={[
            { name: "Function", of: (row) => <code>{row.function}</code> },
            { name: "Calls", of: (row) => <Count of={row.calls} />, number: true },
            { name: "In all", of: (row) => <Duration ms={row.total_ms} />, number: true, wide: true },
            { name: "Mean", of: (row) => `${row.mean_ms.toFixed(2)} ms`, number: true },
            { name: "Longest", of: (row) => <Duration ms={row.most_ms} />, number: true, wide: true },
          ]}
        />
      ) : (
        <p class="soft">{reason ?? "Nothing was measured yet."}</p>
      )}
    </Panel>
  );
}

const Tables = ({ found }: { found: Found }) => (
  <Panel title="Tables">
    <Table
      caption="Tables"
      rows={found.sizes.tables}
      keyOf={(row) => row.table}
      columns={[
        { name: "Table", of: (row) => <code>{row.table}</code> },
        { name: "Rows (estimate)", of: (row) => <Count of={row.rows} />, number: true },
        { name: "Dead rows", of: (row) => <Count of={row.dead_rows} />, number: true, wide: true },
        { name: "Table", of: (row) => sized(row.table_bytes), number: true },
        { name: "Indexes", of: (row) => sized(row.index_bytes), number: true, wide: true },
        { name: "Vacuumed", of: (row) => <When at={row.last_vacuum_at} />, wide: true },
      ]}
    />
  </Panel>
);

function Indexes({ found }: { found: Found }) {
  const { unused, missing, counted_since: since } = found.indexes;
  return (
    <>
      <Panel
        title="Unused indexes"
        aside={
          since && (
            <span class="soft small">
              Counted since <When at={since} />
            </span>
          )
        }
      >
        {unused.length ? (
          <Table
            caption="Unused indexes"
            rows={unused}
            keyOf={(row) => row.index}
            columns={[
              { name: "Index", of: (row) => <code>{row.index}</code> },
              { name: "Table", of: (row) => <code>{row.table}</code>, wide: true },
              { name: "Size", of: (row) => sized(row.bytes), number: true },
            ]}
          />
        ) : (
          <p class="soft">Every index is used.</p>
        )}
      </Panel>
      <Panel title="Missing indexes">
        {missing.length ? (
          <Table
            caption="Missing indexes"
            rows={missing}
            keyOf={(row, index) => `${row.table} ${index}`}
            columns={[
              { name: "Table", of: (row) => <code>{row.table}</code> },
              { name: "Why", of: (row) => row.reason },
            ]}
          />
        ) : (
          <p class="soft">None seems to be missing.</p>
        )}
      </Panel>
    </>
  );
}
