/** What fires, what did, and by which rules; where it is told, and when not. */
import { useState } from "preact/hooks";
import { Panel, useData } from "../parts/data";
import { Deliveries } from "../parts/deliveries";
import { Choice, NothingInPeriod, Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Duration, Status } from "../parts/numbers";
import { linkTo, route, withFilters } from "../parts/routing";
import type { Answer } from "../parts/session";
import { type Column, List, Table } from "../parts/table";
import { FilterTabs, type Tab } from "../parts/tabs";
import { When } from "../parts/times";
import { OneAlert } from "./alert";
import { AcknowledgeDialog, SilenceDialog } from "./alert_dialogs";
import { AddRule, Rules } from "./alert_rules";
import { AddChannel, Channels, useChannels } from "./channels";
import { useFiring } from "./firing";
import { OrgFilter } from "./pickers";
import { Subject, Value } from "./readings";
import { SEEN, SEVERITIES } from "./severities";
import { AddSilence, Silences } from "./silences";

export type Alert = Answer<"/admin/alerts", "get">["data"][number];
type Asked = { does: "acknowledge" | "silence"; alert: Alert } | null;

const TABS: Tab[] = [
  ["", "Firing"],
  ["history", "History"],
  ["rules", "Rules"],
  ["channels", "Channels"],
  ["silences", "Silences"],
  ["deliveries", "Deliveries"],
];

export function Alerts() {
  const id = route.value.parts[1];
  return id ? <OneAlert key={id} id={id} /> : <AllAlerts />;
}

function AllAlerts() {
  const tab = route.value.filters.tab ?? "";
  return (
    <>
      <Heading title="Alerts">
        {tab === "rules" && <AddRule />}
        {tab === "channels" && <AddChannel />}
        {tab === "silences" && <AddSilence />}
      </Heading>
      <FilterTabs tabs={TABS} label="Alerts" />
      <Section key={tab} tab={tab} />
    </>
  );
}

function Section({ tab }: { tab: string }) {
  switch (tab) {
    case "history":
      return <History />;
    case "rules":
      return <Rules />;
    case "channels":
      return <Channels />;
    case "silences":
      return <Silences />;
    case "deliveries":
      return <AllDeliveries />;
    default:
      return <Firing />;
  }
}

const AllDeliveries = () => <Deliveries path="/admin/alerts/deliveries" channels={useChannels()} />;

/** Since when, and for how long. */
const Since = ({ at }: { at: string | null }) =>
  at ? (
    <span class="stacked">
      <When at={at} />
      <span class="soft small">
        for <Duration ms={Math.max(0, Date.now() - Date.parse(at))} />
      </span>
    </span>
  ) : (
    <>–</>
  );

const COLUMNS: Column<Alert>[] = [
  { name: "Alert", of: (one) => <span class="prose">{one.title}</span> },
  { name: "Severity", of: (one) => <Status of={one.severity} />, sort: "severity" },
  { name: "About", of: (one) => <Subject of={one} /> },
  { name: "Value", of: (one) => <Value of={one} />, wide: true },
];

function Firing() {
  const { severity, acknowledged, org_id, rule_id, subject, sort = "severity:desc", cursor } = route.value.filters;
  const query = { severity, acknowledged, org_id, rule_id, subject, sort };
  const fire = useData("/admin/alerts", { query: { ...query, state: "firing", cursor, limit: 50 } }, 15);
  const pend = useData("/admin/alerts", { query: { ...query, state: "pending", limit: 50 } }, 15);
  const isWhole = ![severity, acknowledged, org_id, rule_id, subject].some(Boolean);
  useFiring(isWhole ? (fire.data?.total ?? null) : null);
  const [asked, ask] = useState<Asked>(null);
  const close = () => ask(null);
  return (
    <>
      <div class="filters">
        <Choice name="severity" label="Severity" options={SEVERITIES} />
        <Choice name="acknowledged" label="State" options={SEEN} />
        <OrgFilter />
      </div>
      <Panel>
        <List
          loaded={fire}
          caption="Alerts that fire"
          nothing={
            <>
              <p>
                <span class="status good">No alert is firing.</span>
              </p>
              <a class="button" href={withFilters({ tab: "history" })}>
                See what fired before
              </a>
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => linkTo("alerts", id)}
          columns={[
            ...COLUMNS,
            { name: "Firing since", of: (one) => <Since at={one.firing_at} /> },
            { name: "State", of: (one) => <Care of={one} />, wide: true },
            { name: "", of: (one) => <Actions of={one} ask={ask} />, wide: true },
          ]}
        />
      </Panel>
      {pend.data && pend.data.data.length > 0 && (
        <Panel title="Pending: beyond the threshold, but not for long enough yet">
          <Table
            caption="Pending alerts"
            rows={pend.data.data}
            keyOf={({ id }) => id}
            link={({ id }) => linkTo("alerts", id)}
            columns={[...COLUMNS, { name: "Pending since", of: (one) => <Since at={one.pending_at} /> }]}
          />
        </Panel>
      )}
      {asked?.does === "acknowledge" && <AcknowledgeDialog alert={asked.alert} close={close} />}
      {asked?.does === "silence" && <SilenceDialog alert={asked.alert} close={close} />}
    </>
  );
}

/** Who looks after it, and whether it is told. */
export const Care = ({ of }: { of: Alert }) => (
  <span class="stacked">
    <span>{of.acknowledged_at ? "acknowledged" : "new"}</span>
    {of.silenced && <Status of="silenced" />}
  </span>
);

const Actions = ({ of, ask }: { of: Alert; ask: (asked: Asked) => void }) => (
  <div class="group">
    {!of.acknowledged_at && (
      <button
        type="button"
        class="quiet"
        aria-label={`Acknowledge: ${of.title}`}
        onClick={() => ask({ does: "acknowledge", alert: of })}
      >
        Acknowledge
      </button>
    )}
    <button
      type="button"
      class="quiet"
      aria-label={`Silence: ${of.title}`}
      onClick={() => ask({ does: "silence", alert: of })}
    >
      Silence
    </button>
  </div>
);

const STATES: [string, string][] = [
  ["firing", "Firing"],
  ["resolved", "Resolved"],
];

function History() {
  const { severity, state, org_id, rule_id, subject, incident_id, sort, cursor } = route.value.filters;
  const loaded = useData("/admin/alerts", {
    query: { ...period("168"), severity, state, org_id, rule_id, subject, incident_id, sort, cursor, limit: 50 },
  });
  return (
    <>
      <div class="filters">
        <Period usual="168" />
        <Choice name="severity" label="Severity" options={SEVERITIES} />
        <Choice name="state" label="State" options={STATES} />
        <OrgFilter />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Alerts of the period"
          nothing={<NothingInPeriod>No alert fired in this period.</NothingInPeriod>}
          keyOf={({ id }) => id}
          link={({ id }) => linkTo("alerts", id)}
          columns={[
            ...COLUMNS,
            { name: "State", of: (one) => <Status of={one.state} /> },
            { name: "Began", of: (one) => <When at={one.pending_at} />, sort: "pending_at" },
            { name: "Resolved", of: (one) => <When at={one.resolved_at} />, wide: true },
          ]}
        />
      </Panel>
    </>
  );
}
