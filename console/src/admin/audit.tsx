/** The audit trail: every change, by whom, and from where. */
import { Panel, useData } from "../parts/data";
import { Details } from "../parts/details";
import { Facts } from "../parts/figures";
import { Choice, NothingInPeriod, Period, period, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Status } from "../parts/numbers";
import { linkTo, route, withFilters } from "../parts/routing";
import type { Answer } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";
import { OrgFilter } from "./pickers";

type Row = Answer<"/admin/audit-logs", "get">["data"][number];

export const OUTCOMES: [string, string][] = [
  ["success", "Success"],
  ["refused", "Refused"],
];

export function Audit() {
  const { action, actor_id, target_id, org_id, outcome, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/audit-logs", {
    query: { ...period("720"), action, actor_id, target_id, org_id, outcome, sort, cursor, limit: 50 },
  });
  return (
    <>
      <Heading title="Audit log" />
      <div class="filters">
        <Period usual="720" />
        <OrgFilter />
        <Search name="actor_id" label="Actor (id)" />
        <Search name="action" label="Action, such as key.created" />
        <Search name="target_id" label="Target (id)" />
        <Choice name="outcome" label="Outcome" options={OUTCOMES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Audit events"
          nothing={<NothingInPeriod>Nothing was changed in this period.</NothingInPeriod>}
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Time", of: (one) => <When at={one.occurred_at} seconds />, sort: "occurred_at" },
            { name: "Action", of: (one) => <code>{one.action}</code> },
            { name: "Outcome", of: (one) => <Status of={one.outcome} /> },
            { name: "Actor", of: (one) => <span class="cut">{actorOf(one)}</span> },
            { name: "Target", of: (one) => <code class="cut">{one.target_id}</code>, wide: true },
            { name: "Address", of: (one) => one.ip ?? "–", wide: true },
          ]}
        />
      </Panel>
      {open && <OneEvent key={open} id={open} />}
    </>
  );
}

/** A user, a command of the console, or Tollgate itself. */
const actorOf = ({ actor }: Row): string => actor.user_id ?? actor.name ?? actor.id ?? actor.kind ?? "–";

function OneEvent({ id }: { id: string }) {
  const loaded = useData("/admin/audit-logs/{event_id}", { path: { event_id: id } });
  return (
    <EntrySide loaded={loaded} kind="Audit event" title={({ action }) => action}>
      {(row) => <EventFacts row={row} />}
    </EntrySide>
  );
}

function EventFacts({ row }: { row: Row }) {
  return (
    <>
      <Facts
        facts={[
          ["Time", <When key="at" at={row.occurred_at} seconds />],
          ["Outcome", <Status key="outcome" of={row.outcome} />],
          ...Object.entries(row.actor).map(([name, value]): [string, preact.ComponentChildren] => [
            `Actor: ${name}`,
            <code key={name}>{value}</code>,
          ]),
          ["Target", <code key="target">{row.target_id}</code>],
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
          ["Address", row.ip ?? "–"],
          ["Program", row.user_agent ?? "–"],
          ["Request", row.request_id ? <code key="request">{row.request_id}</code> : "–"],
        ]}
      />
      <p>
        <a class="text" href={withFilters({ open: "", target_id: row.target_id })}>
          All events of this target
        </a>
      </p>
      <Details of={row.details} />
    </>
  );
}
