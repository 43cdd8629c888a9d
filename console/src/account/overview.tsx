/** The balance, what it was spent on, and what is left of the limits. */
import { Money } from "../parts/basics";
import { Chart } from "../parts/chart";
import { Panel, Shown, useData } from "../parts/data";
import { Figures } from "../parts/figures";
import { Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { shownCredits } from "../parts/money";
import { Count, Credits, requestCount } from "../parts/numbers";
import { link } from "../parts/routing";
import { type Answer, me } from "../parts/session";
import { Table } from "../parts/table";

type Found = Answer<"/user/overview", "get">;
const USUAL = "168";
const NO_CREDITS = "Requests need credits. Ask your operator for them.";

export function Overview() {
  const loaded = useData("/user/overview", { query: period(USUAL) }, 60);
  return (
    <>
      <Heading title={me.value?.org_name}>
        <Period usual={USUAL} />
      </Heading>
      <Shown loaded={loaded}>
        {(found) => (
          <div class="stack">
            <Panel>
              <Balance found={found} />
            </Panel>
            <Panel title="Spending">
              <Spending series={found.series} />
            </Panel>
            <Panel title="By model" aside={<a href={link("usage", period(USUAL))}>All requests</a>}>
              <ByModel models={found.models.data} />
            </Panel>
          </div>
        )}
      </Shown>
    </>
  );
}

function Balance({ found }: { found: Found }) {
  const { today, this_month: month } = found.usage;
  const [all, held] = [BigInt(found.credits_nanos), BigInt(found.held_nanos)].map(shownCredits);
  return (
    <Figures
      figures={[
        {
          name: "Available",
          value: <Money nanos={BigInt(found.available_nanos)} />,
          note: BigInt(found.credits_nanos) > 0n ? `of ${all} credits; ${held} held by requests that run` : NO_CREDITS,
          large: true,
        },
        {
          name: "Spent today (UTC)",
          value: <Credits of={today.charge_credits} />,
          note: requestCount(today.requests),
        },
        {
          name: "Spent this month",
          value: <Credits of={month.charge_credits} />,
          note: requestCount(month.requests),
        },
        { name: "Plan", value: found.plan, href: link("limits"), note: "See the limits" },
      ]}
    />
  );
}

function Spending({ series: { data, bucket } }: { series: Found["series"] }) {
  const total = data.reduce((sum, point) => sum + BigInt(point.charge_nanos), 0n);
  const requests = data.reduce((sum, point) => sum + point.requests, 0);
  if (!requests) return <p class="soft">Nothing was spent in this period.</p>;
  return (
    <Chart
      title={bucket === "day" ? "Credits a day (UTC)" : "Credits an hour"}
      summary={`${shownCredits(total)} credits for ${requestCount(requests)}.`}
      times={data.map(({ start }) => start)}
      bucket={bucket}
      lines={[{ name: "Charge", values: data.map((point) => point.charge_nanos) }]}
      written={(value) => shownCredits(BigInt(Math.round(value)))}
    />
  );
}

function ByModel({ models }: { models: Found["models"]["data"] }) {
  if (!models.length) return <NoRequests />;
  return (
    <Table
      caption="Usage by model"
      rows={models}
      keyOf={(row) => row.model ?? ""}
      link={(row) => link("usage", { ...period(USUAL), model: row.model ?? "" })}
      columns={[
        { name: "Model", of: (row) => <span class="cut">{row.model}</span> },
        { name: "Requests", of: (row) => <Count of={row.requests} />, number: true },
        { name: "Failed", of: (row) => <Count of={row.errors} />, number: true, wide: true },
        { name: "Tokens in", of: (row) => <Count of={row.prompt_tokens} />, number: true, wide: true },
        { name: "Tokens out", of: (row) => <Count of={row.completion_tokens} />, number: true, wide: true },
        { name: "Charge", of: (row) => <Credits of={row.charge_credits} />, number: true },
      ]}
    />
  );
}

const NoRequests = () => (
  <div class="nothing-here">
    <p>No request was made in this period.</p>
    <a class="button" href={link("connect")}>
      Make the first one
    </a>
  </div>
);
