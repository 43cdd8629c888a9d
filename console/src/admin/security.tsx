/** What looks like an attack or a leak, and the report for auditors. */
import { useState } from "preact/hooks";
import { Icon, notify } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { Details } from "../parts/details";
import { FormDialog, Lines, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { Choice, Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, Status } from "../parts/numbers";
import { link, linkTo, route, withFilters } from "../parts/routing";
import { type Answer, change, fileOf } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List } from "../parts/table";
import { FilterTabs } from "../parts/tabs";
import { When } from "../parts/times";
import { OrgFilter } from "./pickers";
import { SEEN, SEVERITIES } from "./severities";

type Row = Answer<"/admin/security-events", "get">["data"][number];

const KINDS: Record<Row["kind"], string> = {
  authentication_failed: "Sign-in or key refused",
  ip_refused: "Network refused",
  key_created: "Key created",
  key_revoked: "Key revoked",
  key_rotated: "Key rotated",
  limit_exceeded: "Limit exceeded",
  many_failures: "Many failures",
  many_networks: "Used from many networks",
  org_overdrawn: "Org overdrawn",
  org_paid_suspended: "Paid calls suspended",
  usage_quarantined: "Impossible usage reported",
  usage_spike: "Usage rose sharply",
};
const TABS: [string, string][] = [
  ["", "Events"],
  ["report", "Compliance report"],
];

export function Security() {
  return (
    <>
      <Heading title="Security" />
      <FilterTabs tabs={TABS} label="Security" />
      {route.value.filters.tab === "report" ? <Report /> : <Events />}
    </>
  );
}

function Events() {
  const { kind, severity, acknowledged, org_id, key_id, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/security-events", {
    query: { kind, severity, acknowledged, org_id, key_id, sort, cursor, limit: 50 },
  });
  return (
    <>
      <div class="filters">
        <Choice name="kind" label="Kind" options={Object.entries(KINDS)} />
        <Choice name="severity" label="Severity" options={SEVERITIES} />
        <Choice name="acknowledged" label="State" options={SEEN} />
        <OrgFilter />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Security events"
          nothing={
            <>
              <p>Nothing suspicious was seen.</p>
              <a class="button" href={link("alerts", { tab: "rules" })}>
                See what is watched
              </a>
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Event", of: nameOf },
            { name: "Severity", of: (one) => <Status of={one.severity} />, sort: "severity" },
            { name: "Subject", of: (one) => <code class="cut">{one.subject.id}</code>, wide: true },
            { name: "Times", of: (one) => <Count of={one.count} />, number: true, sort: "count" },
            { name: "Last seen", of: (one) => <When at={one.last_seen_at} />, sort: "last_seen_at" },
            { name: "State", of: (one) => (one.acknowledged_at ? "acknowledged" : "new"), wide: true },
          ]}
        />
      </Panel>
      {open && <OneEvent key={open} id={open} />}
    </>
  );
}

const nameOf = ({ kind }: Row): string => KINDS[kind] ?? kind;

function OneEvent({ id }: { id: string }) {
  const loaded = useData("/admin/security-events/{event_id}", { path: { event_id: id } });
  return (
    <EntrySide loaded={loaded} kind="Security event" title={nameOf}>
      {(row) => <WholeEvent row={row} />}
    </EntrySide>
  );
}

function WholeEvent({ row }: { row: Row }) {
  const [asked, ask] = useState(false);
  const acknowledge = async (values: Values) => {
    await change("post", "/admin/security-events/{event_id}/acknowledge", {
      path: { event_id: row.id },
      body: { note: values.optional("note") },
    });
    notify("The event is acknowledged.");
  };
  return (
    <>
      {!row.acknowledged_at && (
        <div class="actions start">
          <button type="button" class="primary" onClick={() => ask(true)}>
            Acknowledge
          </button>
        </div>
      )}
      <Facts facts={factsOf(row)} />
      <Details of={row.details} />
      {asked && (
        <FormDialog title="Acknowledge the event" action="Acknowledge" onClose={() => ask(false)} submit={acknowledge}>
          <p class="soft">When this is seen again, a new event opens.</p>
          <Lines label="Note" name="note" maxLength={1000} hint="What was found or done. Optional." />
        </FormDialog>
      )}
    </>
  );
}

function factsOf(row: Row): [string, preact.ComponentChildren][] {
  return [
    ["Severity", <Status key="severity" of={row.severity} />],
    [`Subject: ${row.subject.kind}`, <code key="subject">{row.subject.id}</code>],
    [
      "Org",
      row.org_id ? (
        <a key="org" class="text" href={linkTo("orgs", row.org_id)}>
          <code>{row.org_id}</code>
        </a>
      ) : (
        "–"
      ),
    ],
    ["Key", row.key_id ? <code key="key">{row.key_id}</code> : "–"],
    ["Times", <Count key="count" of={row.count} />],
    ["First seen", <When key="first" at={row.first_seen_at} seconds />],
    ["Last seen", <When key="last" at={row.last_seen_at} seconds />],
    ["Acknowledged", row.acknowledged_at ? <When key="ack" at={row.acknowledged_at} seconds /> : "not yet"],
    ...(row.acknowledged_by ? ([["by", <code key="by">{row.acknowledged_by}</code>]] as [string, preact.VNode][]) : []),
    ...(row.note ? ([["Note", row.note]] as [string, string][]) : []),
  ];
}

const FORMATS: [format: string, name: string][] = [
  ["csv", "CSV"],
  ["json", "JSON"],
  ["md", "Markdown"],
];

function Report() {
  return (
    <>
      <div class="filters">
        <Period usual="720" />
      </div>
      <Panel title="What the report has">
        <p>
          Keys that were issued, rotated and revoked, and those nobody uses; who changed what; which keys were used;
          money in and out; and whether the books agree.
        </p>
        <div class="actions start">
          {FORMATS.map(([format, name]) => (
            <a
              key={format}
              class="button"
              href={fileOf("/admin/compliance/report", { ...period("720"), format })}
              download={`compliance-report.${format}`}
            >
              <Icon name="down" /> {name}
            </a>
          ))}
        </div>
      </Panel>
    </>
  );
}
