/** One alert: what it means, how its state changed, and who was told. */
import { useState } from "preact/hooks";
import { Panel, Shown, useData } from "../parts/data";
import { alertsOf, type Delivery } from "../parts/deliveries";
import { Facts } from "../parts/figures";
import { Heading } from "../parts/frame";
import { Status } from "../parts/numbers";
import { link } from "../parts/routing";
import type { Answer } from "../parts/session";
import { Table } from "../parts/table";
import { When } from "../parts/times";
import { AcknowledgeDialog, SilenceDialog } from "./alert_dialogs";
import { AdviceOf } from "./alert_rules";
import { type Channel, useChannels } from "./channels";
import { against, Subject, written } from "./readings";

type Alert = Answer<"/admin/alerts/{alert_id}", "get">;
type Change = Alert["history"][number];

export function OneAlert({ id }: { id: string }) {
  const loaded = useData("/admin/alerts/{alert_id}", { path: { alert_id: id } }, 15);
  return (
    <Shown loaded={loaded}>
      {(alert) => (
        <div class="entry">
          <Head alert={alert} />
          <Panel>
            <Facts facts={factsOf(alert)} />
          </Panel>
          {alert.rule.advice && (
            <Panel title="What to do">
              <AdviceOf advice={alert.rule.advice} />
            </Panel>
          )}
          <Panel title="History">
            <History alert={alert} />
          </Panel>
        </div>
      )}
    </Shown>
  );
}

function Head({ alert }: { alert: Alert }) {
  const [asked, ask] = useState<"acknowledge" | "silence" | null>(null);
  return (
    <>
      <Heading
        title={
          <>
            {alert.title} <Status of={alert.state} />
          </>
        }
      >
        {alert.state !== "resolved" && (
          <>
            {!alert.acknowledged_at && (
              <button type="button" class="primary" onClick={() => ask("acknowledge")}>
                Acknowledge
              </button>
            )}
            <button type="button" onClick={() => ask("silence")}>
              Silence
            </button>
          </>
        )}
      </Heading>
      {asked === "acknowledge" && <AcknowledgeDialog alert={alert} close={() => ask(null)} />}
      {asked === "silence" && <SilenceDialog alert={alert} close={() => ask(null)} />}
    </>
  );
}

type Fact = [string, preact.ComponentChildren];

function factsOf(alert: Alert): Fact[] {
  return [
    ["Severity", <Status key="severity" of={alert.severity} />],
    ["About", <Subject key="subject" of={alert} />],
    ...(alert.subject_name ? [["Id", <code key="id">{alert.subject}</code>] as Fact] : []),
    ["Value", against(alert)],
    [
      "Rule",
      <a key="rule" class="text" href={link("alerts", { tab: "rules", open: alert.rule_id })}>
        <code>{alert.rule_id}</code>
      </a>,
    ],
    ["Pending since", <When key="pending" at={alert.pending_at} seconds />],
    ["Firing since", <When key="firing" at={alert.firing_at} seconds />],
    ...(alert.resolved_at ? [["Resolved", <When key="resolved" at={alert.resolved_at} seconds />] as Fact] : []),
    ["Channels notified", alert.told_at ? <When key="told" at={alert.told_at} seconds /> : "not yet"],
    ...(alert.silenced ? [["Silence", <Silenced key="silence" alert={alert} />] as Fact] : []),
    ...(alert.incident_id ? [["Same incident", <Incident key="incident" id={alert.incident_id} />] as Fact] : []),
    ["Acknowledged", alert.acknowledged_at ? <When key="seen" at={alert.acknowledged_at} seconds /> : "not yet"],
    ...(alert.acknowledged_by ? [["Acknowledged by", <code key="by">{alert.acknowledged_by}</code>] as Fact] : []),
    ...(alert.note ? [["Note", alert.note] as Fact] : []),
  ];
}

const Silenced = ({ alert }: { alert: Alert }) => (
  <a class="text" href={link("alerts", { tab: "silences", state: "active" })}>
    a silence matches it{alert.told_at ? "" : ", so it is not told"}
  </a>
);

const Incident = ({ id }: { id: string }) => (
  <a class="text" href={link("alerts", { tab: "history", incident_id: id })}>
    the alerts of its incident
  </a>
);

function History({ alert }: { alert: Alert }) {
  const loaded = useData("/admin/alerts/deliveries", { query: { alert_id: alert.id, limit: 100 } });
  const channels = useChannels();
  const deliveries = loaded.data?.data ?? [];
  return (
    <>
      <Table
        caption="History"
        rows={alert.history}
        keyOf={({ at, state }) => `${at} ${state}`}
        columns={[
          { name: "State", of: (one) => <Status of={one.state} /> },
          { name: "Value", of: (one) => written(alert.signal, one.value) },
          { name: "Time", of: (one) => <When at={one.at} seconds /> },
          {
            name: "Told",
            of: (one) => <Told by={deliveries.filter((made) => tells(made, alert, one))} channels={channels} />,
          },
        ]}
      />
      {loaded.problem && <p class="soft small">What was told could not be loaded: {loaded.problem.message}</p>}
    </>
  );
}

const tells = (delivery: Delivery, { id }: Alert, { state }: Change): boolean =>
  alertsOf(delivery).some((one) => one.id === id && one.state === state);

function Told({ by, channels }: { by: Delivery[]; channels: Channel[] }) {
  if (!by.length) return <span class="soft">–</span>;
  return (
    <span class="stacked">
      {by.map(({ id, channel_id, state }) => (
        <span key={id} class="group">
          <a class="text cut" href={link("alerts", { tab: "deliveries", open: id })}>
            {channels.find((one) => one.id === channel_id)?.name ?? channel_id}
          </a>
          <Status of={state} />
        </span>
      ))}
    </span>
  );
}
