/** What an operator must know at a glance: one call of the API for the whole view. */
import type { ComponentChildren } from "preact";
import { Chart } from "../parts/chart";
import { Panel, Shown, useData } from "../parts/data";
import { type Figure, Figures } from "../parts/figures";
import { Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { nanosOf, shownCredits } from "../parts/money";
import { Count, Credits, counted, Duration, lasting, percent, requestCount, shortly } from "../parts/numbers";
import { link, linkTo } from "../parts/routing";
import type { Answer } from "../parts/session";
import { type Column, Table } from "../parts/table";
import { When } from "../parts/times";
import { useFiring } from "./firing";

type Found = Answer<"/admin/overview", "get">;
type Used = Found["period"];

export function Overview() {
  const loaded = useData("/admin/overview", { query: period() }, 60);
  const firing = loaded.data?.attention.find(({ kind }) => kind === "alerts_firing")?.count ?? 0;
  useFiring(loaded.data && firing);
  return (
    <>
      <Heading title="Overview">
        <Period />
      </Heading>
      <Shown loaded={loaded}>{(found) => <Whole found={found} />}</Shown>
    </>
  );
}

const Whole = ({ found }: { found: Found }) => (
  <div class="stack">
    {isNew(found) ? <FirstSteps /> : <Attention items={found.attention} />}
    <Panel title={<Span of={found.period} />}>
      <div class="fives">
        <Figures figures={usageOf(found.period, found.before)} />
      </div>
      {!found.period.requests && <p class="soft">No request was made in this period, so there is no chart of it.</p>}
    </Panel>
    {found.period.requests > 0 && <Charts found={found} />}
    <Panel title="Now">
      <Figures figures={stateOf(found)} />
    </Panel>
    <Tops found={found} />
  </div>
);

const isNew = ({ period: now, before, balances, attention }: Found): boolean =>
  !now.requests && !before.requests && !balances.credits_nanos && !attention.length;

/** What an operator does first in an installation without customers. */
const FirstSteps = () => (
  <Panel title="First steps">
    <ol class="first-steps">
      <li>
        <a class="text" href={link("orgs")}>
          Create an org
        </a>{" "}
        for a customer, and grant it credits on its page.
      </li>
      <li>
        <a class="text" href={link("users")}>
          Create a user
        </a>{" "}
        in the org, and there a key for a program, or a sign-in link for the person.
      </li>
      <li>
        <a class="text" href={link("models")}>
          Look at the models and their prices
        </a>
        , or{" "}
        <a class="text" href={link("upstreams")}>
          add a server of your own
        </a>
        .
      </li>
      <li>
        <a class="text" href="ui">
          Send a request
        </a>{" "}
        with the key in the playground. It then appears here.
      </li>
    </ol>
  </Panel>
);

const Span = ({ of }: { of: Used }) => (
  <>
    <When at={of.from} /> to <When at={of.to} />, compared with the same length of time before
  </>
);

const SEVERITIES: Record<string, string> = { critical: "bad", warning: "warn", info: "" };

function Attention({ items }: { items: Found["attention"] }) {
  return (
    <Panel title="Needs attention">
      {items.length ? (
        <ul class="attention">
          {items.map(({ kind, severity, message, where }) => (
            <li key={`${kind} ${severity}`}>
              <a href={where.slice(where.indexOf("#"))}>
                <span class={`status ${SEVERITIES[severity]}`}>{severity}</span>
                <span>{message}</span>
              </a>
            </li>
          ))}
        </ul>
      ) : (
        <p class="soft">
          <span class="status good">Nothing needs attention.</span>
        </p>
      )}
    </Panel>
  );
}

/** How much a value changed, as a share of the earlier one. */
function changed(now: number, before: number): string {
  if (now === before) return "unchanged";
  if (before === 0) return "none before";
  return `${now > before ? "+" : "−"}${percent(Math.abs(now - before), Math.abs(before))}`;
}

const amount = (text: string): number => Number(nanosOf(text) ?? 0n);
const tokens = (of: Used): number => of.prompt_tokens + of.completion_tokens;

function usageOf(now: Used, before: Used): Figure[] {
  const money = (name: string, one: string, other: string, more = ""): Figure => ({
    name,
    value: <Credits of={one} />,
    note: `${changed(amount(one), amount(other))}${more}`,
  });
  const share = amount(now.charge_credits)
    ? `, ${percent(amount(now.margin_credits), amount(now.charge_credits))} of charge`
    : "";
  return [
    money("Charge", now.charge_credits, before.charge_credits),
    money("Cost", now.cost_credits, before.cost_credits),
    money("Margin", now.margin_credits, before.margin_credits, share),
    money("Refunded", now.refunded_credits, before.refunded_credits),
    { name: "Tokens", value: shortly(tokens(now)), note: changed(tokens(now), tokens(before)) },
    { name: "Requests", value: shortly(now.requests), note: changed(now.requests, before.requests), href: usage() },
    {
      name: "Errors",
      value: shortly(now.errors),
      note: `${percent(now.errors, now.requests)} of requests; ${percent(before.errors, before.requests)} before`,
      href: usage({ measure: "errors" }),
    },
    { name: "Streamed", value: shortly(now.streamed), note: `${percent(now.streamed, now.requests)} of requests` },
    times("Duration", now.latency, before.latency),
    times("First token", now.first_token, before.first_token),
  ];
}

const usage = (more: Record<string, string> = {}) => link("usage", { ...period(), ...more });

function times(name: string, now: Used["latency"], before: Used["latency"]): Figure {
  const p95 = now.p95_ms === null ? "no request was measured" : `95% within ${lasting(now.p95_ms)}`;
  const earlier = before.p50_ms === null ? "" : `; median ${lasting(before.p50_ms)} before`;
  return { name: `${name}, median`, value: <Duration ms={now.p50_ms} />, note: p95 + earlier };
}

function Charts({ found }: { found: Found }) {
  const { series, bucket, period: all } = found;
  const each = { times: series.map(({ start }) => start), bucket };
  const a = bucket === "day" ? "a day (UTC)" : "an hour";
  return (
    <div class="columns">
      <Panel title="Requests">
        <Chart
          {...each}
          title={`Requests ${a}`}
          summary={`${requestCount(all.requests)}, ${counted(all.errors)} failed.`}
          lines={[
            { name: "Succeeded", values: series.map(({ requests, errors }) => requests - errors) },
            { name: "Failed", values: series.map(({ errors }) => errors) },
          ]}
          written={shortly}
        />
      </Panel>
      <Panel title="Charge and cost">
        <Chart
          {...each}
          title={`Credits ${a}`}
          summary={`${shown(all.charge_credits)} charged, ${shown(all.cost_credits)} paid to upstreams.`}
          kind="lines"
          lines={[
            { name: "Charge", values: series.map(({ charge_nanos }) => charge_nanos) },
            { name: "Cost", values: series.map(({ cost_nanos }) => cost_nanos) },
          ]}
          written={(nanos) => shownCredits(BigInt(Math.round(nanos)))}
        />
      </Panel>
      <Panel title="Error rate">
        <Chart
          {...each}
          title={`Failed requests as a share of all, ${bucket === "day" ? "by day (UTC)" : "by hour"}`}
          summary={`${percent(all.errors, all.requests)} over the whole period.`}
          kind="lines"
          lines={[{ name: "Failed", values: series.map(({ error_rate }) => error_rate) }]}
          written={(share) => percent(share, 1)}
          fractions
        />
      </Panel>
      <Panel title="Tokens">
        <Chart
          {...each}
          title={`Tokens ${a}`}
          summary={`${counted(all.prompt_tokens)} in, ${counted(all.completion_tokens)} out.`}
          lines={[
            { name: "In", values: series.map(({ prompt_tokens }) => prompt_tokens) },
            { name: "Out", values: series.map(({ completion_tokens }) => completion_tokens) },
          ]}
          written={shortly}
        />
      </Panel>
    </div>
  );
}

const shown = (text: string) => shownCredits(nanosOf(text) ?? 0n);

function stateOf({ open_holds: holds, overdrawn, paid_suspended, balances, openrouter }: Found): Figure[] {
  return [
    { name: "Credits of all orgs", value: <Credits of={balances.credits} />, href: link("orgs") },
    {
      name: "Open holds",
      value: <Credits of={holds.held_credits} />,
      note: <Holds of={holds} />,
      href: link("usage", { state: "held" }),
    },
    {
      name: "Overdrawn orgs",
      value: <Count of={overdrawn.count} />,
      note: overdrawn.count ? <Owed of={overdrawn.overdrawn_credits} /> : "No org owes credits",
      href: link("orgs", { sort: "credits:asc" }),
    },
    {
      name: "Suspended orgs",
      value: <Count of={paid_suspended.count} />,
      note: "Their paid calls are refused",
      href: link("security", { kind: "org_paid_suspended" }),
    },
    {
      name: "Credit at OpenRouter",
      value: <Credits of={openrouter.credits} />,
      note:
        openrouter.reason ??
        (openrouter.days_left === null ? "Nothing was spent today" : daysLeft(openrouter.days_left)),
      href: link("upstreams"),
    },
  ];
}

const daysLeft = (days: number) => `lasts ${days < 10 ? days.toFixed(1) : counted(days)} days at today's rate`;

const Owed = ({ of }: { of: string }) => (
  <>
    <Credits of={of} /> owed
  </>
);

const Holds = ({ of }: { of: Found["open_holds"] }) => (
  <>
    {requestCount(of.count)}, {counted(of.unsettled)} without a cost
    {of.oldest_at && (
      <>
        ; since <When at={of.oldest_at} />
      </>
    )}
  </>
);

type Entry = Found["top_orgs"][number] | Found["top_models"][number] | Found["top_keys"][number];

const measures = <Row extends Entry>(): Column<Row>[] => [
  { name: "Charge", of: (row) => <Credits of={row.charge_credits} />, number: true },
  { name: "Margin", of: (row) => <Credits of={row.margin_credits} />, number: true },
];

const named = (text: string): ComponentChildren => (
  <span class="cut" title={text}>
    {text}
  </span>
);

const Tops = ({ found }: { found: Found }) => (
  <div class="columns three">
    <Top
      title="Top orgs"
      rows={found.top_orgs}
      name={(row) => row.name || row.org_id}
      idOf={(row) => row.org_id}
      leads={(id) => linkTo("orgs", id)}
      all={link("orgs")}
    />
    <Top
      title="Top models"
      rows={found.top_models}
      name={(row) => row.model}
      idOf={(row) => row.model}
      leads={(model) => usage({ model })}
      all={link("models")}
    />
    <Top
      title="Top keys"
      rows={found.top_keys}
      name={(row) => row.name || row.masked_key || row.key_id}
      idOf={(row) => row.key_id}
      leads={(id) => link("keys", { open: id })}
      all={link("keys")}
    />
  </div>
);

function Top<Row extends Entry>({
  title,
  rows,
  name,
  idOf,
  leads,
  all,
}: {
  title: string;
  rows: Row[];
  name: (row: Row) => string;
  idOf: (row: Row) => string;
  leads: (id: string) => string;
  all: string;
}) {
  return (
    <Panel title={title} aside={<a href={all}>All</a>}>
      {rows.length ? (
        <Table
          caption={title}
          rows={rows}
          keyOf={idOf}
          link={(row) => leads(idOf(row))}
          columns={[{ name: "Name", of: (row) => named(name(row)) }, ...measures<Row>()]}
        />
      ) : (
        <p class="soft">No request was made in this period.</p>
      )}
    </Panel>
  );
}
