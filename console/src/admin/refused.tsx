/** The paid calls that were refused, counted by hour, key, model and code. */
import type { ComponentChildren } from "preact";
import { Icon } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { Facts } from "../parts/figures";
import { Choice, NothingInPeriod, Period, period, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count } from "../parts/numbers";
import { linkTo, route, withFilters } from "../parts/routing";
import { type Answer, fileOf } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List } from "../parts/table";
import { bucketName, When } from "../parts/times";
import { OrgFilter } from "./pickers";

type Row = Answer<"/admin/usage/refused", "get">["data"][number];

const CODES: [string, string][] = [
  ["insufficient_credits", "Not enough credits"],
  ["key_budget_exhausted", "Budget of the key spent"],
  ["quota_exhausted", "Quota of the key used up"],
  ["rate_limit_exceeded", "Limit exceeded"],
  ["too_many_in_flight", "Too many running"],
  ["permission_denied", "Scope missing"],
  ["model_not_allowed", "Model not allowed"],
  ["ip_not_allowed", "Address not allowed"],
  ["paid_calls_suspended", "Paid calls suspended"],
];

export function Refused({ tabs }: { tabs: ComponentChildren }) {
  const { org_id, model, code, key_id, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/usage/refused", {
    query: { ...period(), org_id, model, code, key_id, sort, cursor, limit: 50 },
  });
  const file = fileOf("/admin/usage/refused/export", { ...period(), org_id, model, code, key_id, sort, format: "csv" });
  return (
    <>
      <Heading title="Usage">
        <a class="button" href={file} download>
          <Icon name="down" /> CSV
        </a>
        <Period />
      </Heading>
      {tabs}
      <div class="filters">
        <OrgFilter />
        <Search name="model" label="Exact model id" />
        <Choice name="code" label="Why" options={CODES} />
      </div>
      <Panel title="Refused calls, by hour">
        <List
          loaded={loaded}
          caption="Refused calls"
          nothing={<NothingInPeriod>No paid call was refused in this period.</NothingInPeriod>}
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Hour", of: (one) => bucketName(one.start, "hour"), sort: "start" },
            { name: "Why", of: nameOf },
            { name: "Calls", of: (one) => <Count of={one.count} />, number: true },
            { name: "Model", of: (one) => <span class="cut">{one.model ?? "–"}</span> },
            { name: "Org", of: (one) => <code class="cut">{one.org_id}</code>, wide: true },
            { name: "Key", of: (one) => <code class="cut">{one.key_id ?? "–"}</code>, wide: true },
            { name: "Last", of: (one) => <When at={one.last_seen_at} seconds />, wide: true },
          ]}
        />
      </Panel>
      {open && <OneRow key={open} id={open} />}
    </>
  );
}

const nameOf = (row: Row): string => CODES.find(([code]) => code === row.code)?.[1] ?? row.code;

function OneRow({ id }: { id: string }) {
  const loaded = useData("/admin/usage/refused/{row_id}", { path: { row_id: id } });
  return (
    <EntrySide loaded={loaded} kind="Refused calls" title={nameOf}>
      {(row) => <Facts facts={factsOf(row)} />}
    </EntrySide>
  );
}

const factsOf = (row: Row): [string, ComponentChildren][] => [
  ["Code", <code key="code">{row.code}</code>],
  ["Calls", <Count key="count" of={row.count} />],
  ["Hour", bucketName(row.start, "hour")],
  ["Org", <To key="org" path="orgs" id={row.org_id} />],
  ["User", <To key="user" path="users" id={row.user_id} />],
  ["Key", <code key="key">{row.key_id ?? "–"}</code>],
  ["Model", row.model ?? "–"],
  ["First", <When key="first" at={row.first_seen_at} seconds />],
  ["Last", <When key="last" at={row.last_seen_at} seconds />],
  ["Id of the last", row.last.request_id ? <code key="id">{row.last.request_id}</code> : "–"],
  ...Object.entries(row.last.facts).map(([name, value]): [string, string] => [
    name.replaceAll("_", " "),
    typeof value === "object" ? JSON.stringify(value) : String(value),
  ]),
];

const To = ({ path, id }: { path: string; id: string | null }) =>
  id ? (
    <a class="text" href={linkTo(path, id)}>
      {id}
    </a>
  ) : (
    <>–</>
  );
