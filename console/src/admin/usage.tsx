/** The requests of all orgs: over time, as a list with a panel for one of them, and the calls that were refused. */
import { Icon } from "../parts/basics";
import { Chart } from "../parts/chart";
import { Panel, Shown, useData } from "../parts/data";
import { Choice, NothingInPeriod, Period, period, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { nanosOf, shownCredits } from "../parts/money";
import { Count, Credits, counted, Duration, lasting, requestCount, shortly } from "../parts/numbers";
import { Outcome } from "../parts/request";
import { route, withFilters } from "../parts/routing";
import { type Answer, fileOf, type Query } from "../parts/session";
import { List, Table } from "../parts/table";
import { FilterTabs } from "../parts/tabs";
import { bucketFor, When } from "../parts/times";
import { OrgFilter } from "./pickers";
import { Refused } from "./refused";
import { RequestPage, RequestSide } from "./request";

type Series = Answer<"/admin/usage/series", "get">;
type Group = NonNullable<Series["groups"]>[number];
type Row = Answer<"/admin/usage", "get">["data"][number];
type Options = [value: string, label: string][];

const STATES: Options = [
  ["settled", "Settled"],
  ["held", "Running"],
  ["unsettled", "Unsettled"],
  ["released", "Released, not charged"],
];
const STATUSES: Options = [
  ["2xx", "Succeeded"],
  ["4xx", "Refused (4xx)"],
  ["5xx", "Failed (5xx)"],
];
const YES_OR_NO: Options = [
  ["true", "Yes"],
  ["false", "No"],
];
const DIMENSIONS: Options = [
  ["model", "Model"],
  ["org", "Org"],
  ["key", "Key"],
  ["user", "User"],
  ["upstream", "Upstream"],
];
const MEASURES: Options = [
  ["charge", "Charge"],
  ["cost", "Cost"],
  ["requests", "Requests"],
  ["errors", "Failed requests"],
  ["tokens", "Tokens"],
];
const SUBJECTS = ["org_id", "user_id", "key_id", "model", "upstream"];
const MORE = [
  "upstream",
  "user_id",
  "key_id",
  "endpoint",
  "id",
  "generation_id",
  "streamed",
  "estimated",
  "quarantined",
  "cached",
  "prompt_cached",
];
const LISTED = [...SUBJECTS, ...MORE, "state", "status"];
/** Only the list follows these. */
const OF_LIST_ONLY = LISTED.filter((name) => !SUBJECTS.includes(name));

function chosen(names: string[]): Record<string, string> {
  const { filters } = route.value;
  return Object.fromEntries(names.flatMap((name) => (filters[name] ? [[name, filters[name]]] : [])));
}

export function Usage() {
  const { parts, filters } = route.value;
  if (parts[1]) return <RequestPage id={parts[1]} />;
  return filters.tab === "refused" ? <Refused tabs={<UsageTabs />} /> : <Requests />;
}

const TABS: Options = [
  ["", "Requests"],
  ["refused", "Refused calls"],
];

const UsageTabs = () => <FilterTabs tabs={TABS} label="Usage" keepsFilters />;

function Requests() {
  const { open, sort } = route.value.filters;
  const query = { ...period(), ...chosen(LISTED), sort };
  return (
    <>
      <Heading title="Usage">
        <Period />
      </Heading>
      <UsageTabs />
      <div class="filters">
        <OrgFilter />
        <Search name="model" label="Exact model id" />
        <Choice name="state" label="State" options={STATES} />
        <Choice name="status" label="Outcome" options={STATUSES} />
      </div>
      <MoreFilters />
      <Split />
      <Latencies />
      <RequestList query={query} />
      {open && <RequestSide id={open} key={open} />}
    </>
  );
}

const File = ({ query, format, name }: { query: Query; format: string; name: string }) => (
  <a class="button" href={fileOf("/admin/usage/export", { ...query, format })} download>
    <Icon name="down" /> {name}
  </a>
);

function MoreFilters() {
  const set = Object.keys(chosen(MORE)).length;
  return (
    <details class="more" open={set > 0}>
      <summary>More filters{set > 0 && ` (${set})`}</summary>
      <div class="filters">
        <Search name="id" label="Request id" />
        <Search name="generation_id" label="Id of the answer" />
        <Search name="key_id" label="Key id" />
        <Search name="user_id" label="User id" />
        <Search name="upstream" label="Upstream" />
        <Choice name="streamed" label="Streamed" options={YES_OR_NO} />
        <Choice name="estimated" label="Estimated" options={YES_OR_NO} />
        <Choice name="quarantined" label="Quarantined" options={YES_OR_NO} />
        <Choice name="cached" label="From the cache" options={YES_OR_NO} />
        <Choice name="prompt_cached" label="Prompt cached" options={YES_OR_NO} />
      </div>
    </details>
  );
}

function Split() {
  const { by = "model" } = route.value.filters;
  const query = { ...period(), ...chosen(SUBJECTS) };
  const bucket = bucketFor(query);
  const loaded = useData("/admin/usage/series", { query: { ...query, bucket, by } });
  return (
    <Panel
      title="Over time"
      aside={
        <>
          <Choice name="measure" label="Show" options={MEASURES.slice(1)} all={MEASURES[0]?.[1] ?? null} />
          <Choice name="by" label="By" options={DIMENSIONS.slice(1)} all={DIMENSIONS[0]?.[1] ?? null} />
        </>
      }
    >
      <Shown loaded={loaded}>{(series) => <SplitSeries series={series} by={by} />}</Shown>
      {Object.keys(chosen(OF_LIST_ONLY)).length > 0 && (
        <p class="soft small">Charts show requests of every state: some filters apply to the list only.</p>
      )}
    </Panel>
  );
}

type Measured = Pick<
  Group,
  | "requests"
  | "errors"
  | "prompt_tokens"
  | "completion_tokens"
  | "charge_nanos"
  | "cost_nanos"
  | "charge_credits"
  | "cost_credits"
>;

function measured(of: Measured, measure: string): number {
  if (measure === "requests") return of.requests;
  if (measure === "errors") return of.errors;
  if (measure === "tokens") return tokens(of);
  return measure === "cost" ? of.cost_nanos : of.charge_nanos;
}

const tokens = (of: Measured): number => of.prompt_tokens + of.completion_tokens;
const isMoney = (measure: string) => measure === "charge" || measure === "cost";

/** The sum of all groups. */
function summed(groups: Group[], measure: string): string {
  if (!isMoney(measure)) return counted(groups.reduce((sum, one) => sum + measured(one, measure), 0));
  const nanos = groups.map((one) => nanosOf(measure === "cost" ? one.cost_credits : one.charge_credits) ?? 0n);
  return `${shownCredits(nanos.reduce((sum, one) => sum + one, 0n))} credits`;
}

function SplitSeries({ series, by }: { series: Series; by: string }) {
  const { measure = "charge" } = route.value.filters;
  const groups = series.groups ?? [];
  const label = MEASURES.find(([value]) => value === measure)?.[1] ?? "Charge";
  if (!groups.length) return <p class="soft">No request was made in this period.</p>;
  return (
    <>
      <Chart
        title={`${label} ${series.bucket === "day" ? "a day (UTC)" : "an hour"}`}
        summary={`${summed(groups, measure)} in the whole period.`}
        times={series.data.map(({ start }) => start)}
        bucket={series.bucket}
        lines={groups.map((group) => ({
          name: nameOf(group, by),
          values: group.data.map((point) => measured(point, measure)),
        }))}
        written={isMoney(measure) ? (nanos) => shownCredits(BigInt(Math.round(nanos))) : shortly}
      />
      <Groups groups={groups} by={by} />
    </>
  );
}

const FILTERS: Record<string, "model" | "org_id" | "key_id" | "user_id" | "upstream"> = {
  model: "model",
  org: "org_id",
  key: "key_id",
  user: "user_id",
  upstream: "upstream",
};

function nameOf(group: Group, by: string): string {
  if (group.is_rest) return "All others";
  const names: Record<string, string | null | undefined> = {
    org: group.org_name,
    key: group.key_name,
    user: group.user_email,
  };
  return names[by] || idOf(group, by) || "None";
}

const idOf = (group: Group, by: string): string | null => group[FILTERS[by] ?? "model"] ?? null;

const Groups = ({ groups, by }: { groups: Group[]; by: string }) => (
  <Table
    caption="Groups"
    rows={groups}
    keyOf={(group) => `${group.is_rest} ${idOf(group, by)}`}
    columns={[
      {
        name: DIMENSIONS.find(([value]) => value === by)?.[1] ?? by,
        of: (group) => <GroupName group={group} by={by} index={groups.indexOf(group)} />,
      },
      { name: "Requests", of: (row) => <Count of={row.requests} />, number: true },
      { name: "Failed", of: (row) => <Count of={row.errors} />, number: true, wide: true },
      { name: "Tokens", of: (row) => <Count of={tokens(row)} />, number: true, wide: true },
      { name: "Charge", of: (row) => <Credits of={row.charge_credits} />, number: true },
      { name: "Cost", of: (row) => <Credits of={row.cost_credits} />, number: true, wide: true },
      { name: "Margin", of: (row) => <Credits of={row.margin_credits} />, number: true },
    ]}
  />
);

function GroupName({ group, by, index }: { group: Group; by: string; index: number }) {
  const id = idOf(group, by);
  const name = nameOf(group, by);
  const shown = (
    <span class="cut" title={name}>
      {name}
    </span>
  );
  return (
    <span class="group">
      <i class={`swatch swatch-${index + 1}`} />
      {id ? <a href={withFilters({ [FILTERS[by] ?? "model"]: id })}>{shown}</a> : shown}
    </span>
  );
}

const DAY_MS = 86_400_000;

/** Of some requests only, hours are known for one day. */
function latencyBucket(query: Record<string, string>): "hour" | "day" {
  const narrow = SUBJECTS.some((name) => query[name]);
  const length = query.hours
    ? Number(query.hours) * 3_600_000
    : (query.to ? Date.parse(query.to) : Date.now()) - Date.parse(query.from ?? "");
  return narrow && length > DAY_MS ? "day" : bucketFor(query);
}

function Latencies() {
  const query = { ...period(), ...chosen(SUBJECTS) };
  const bucket = latencyBucket(query);
  const loaded = useData("/admin/usage/latency/series", { query: { ...query, bucket } });
  return (
    <Panel title="Latency">
      <Shown loaded={loaded}>
        {({ data }) => (
          <div class="columns">
            <LatencyChart title="Duration" data={data} bucket={bucket} kind="latency" />
            <LatencyChart title="Time to first token" data={data} bucket={bucket} kind="first_token" />
          </div>
        )}
      </Shown>
    </Panel>
  );
}

type Points = Answer<"/admin/usage/latency/series", "get">["data"];

function LatencyChart({
  title,
  data,
  bucket,
  kind,
}: {
  title: string;
  data: Points;
  bucket: string;
  kind: "latency" | "first_token";
}) {
  const count = data.reduce((sum, point) => sum + point[kind].requests, 0);
  if (!count) return <p class="soft">{title}: no request was measured.</p>;
  return (
    <Chart
      title={`${title}, by ${bucket}`}
      summary={`${requestCount(count)} without an error.`}
      times={data.map(({ start }) => start)}
      bucket={bucket}
      kind="lines"
      lines={[
        { name: "Median", values: data.map((point) => point[kind].p50_ms) },
        { name: "95th percentile", values: data.map((point) => point[kind].p95_ms) },
      ]}
      written={lasting}
    />
  );
}

const OrgName = ({ of }: { of: Row }) => (
  <span class="cut short" title={of.org_id}>
    {of.org_name || of.org_id}
  </span>
);

const InAndOut = ({ of }: { of: Row }) => (
  <>
    <Count of={of.prompt_tokens} /> / <Count of={of.completion_tokens} />
  </>
);

function RequestList({ query }: { query: Record<string, string | undefined> }) {
  const { cursor, open } = route.value.filters;
  const loaded = useData("/admin/usage", { query: { ...query, cursor, limit: 50 } });
  return (
    <Panel
      title="Requests"
      aside={
        <>
          <File query={{ ...query, totals: true }} format="csv" name="CSV" />
          <File query={query} format="jsonl" name="NDJSON" />
        </>
      }
    >
      <List
        loaded={loaded}
        caption="Requests"
        nothing={<NothingInPeriod>No request was made in this period.</NothingInPeriod>}
        keyOf={({ id }) => id}
        link={({ id }) => withFilters({ open: id })}
        open={({ id }) => id === open}
        columns={[
          { name: "Time", of: (row) => <When at={row.created_at} seconds />, sort: "created_at" },
          { name: "Model", of: (row) => <span class="cut">{row.model}</span> },
          { name: "Org", of: (row) => <OrgName of={row} />, wide: true },
          { name: "Upstream", of: (row) => <span class="cut">{row.upstream ?? "–"}</span>, wide: true },
          { name: "State", of: (row) => <Outcome row={row} /> },
          { name: "Tokens in / out", of: (row) => <InAndOut of={row} />, number: true, wide: true },
          { name: "Duration", of: (row) => <Duration ms={row.duration_ms} />, number: true, wide: true },
          { name: "Charge", of: (row) => <Credits of={row.charge_credits} />, number: true },
          { name: "Cost", of: (row) => <Credits of={row.cost_credits} />, number: true, wide: true },
        ]}
      />
    </Panel>
  );
}
