/** The balance, what it was spent on, and what is left of the limits. */
import { Money } from "../parts/basics";
import { Chart } from "../parts/chart";
import { Panel, Shown, useData } from "../parts/data";
import { Figures } from "../parts/figures";
import { Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { exactCredits, shownCredits } from "../parts/money";
import { Count, Credits, counted, shortly } from "../parts/numbers";
import { link } from "../parts/routing";
import { type Answer, me } from "../parts/session";
import { List } from "../parts/table";
import { bucketFor } from "../parts/times";

export function Overview() {
  return (
    <>
      <Heading title={me.value?.org_name}>
        <Period usual="168" />
      </Heading>
      <Balance />
      <Spending />
      <ByModel />
    </>
  );
}

type Monitor = Answer<"/user/monitor", "get">;

function Balance() {
  const loaded = useData("/user/monitor", {}, 60);
  return (
    <Panel>
      <Shown loaded={loaded}>{(found) => <BalanceFigures found={found} />}</Shown>
    </Panel>
  );
}

function BalanceFigures({ found }: { found: Monitor }) {
  const { today, this_month: month } = found.usage;
  return (
    <Figures
      figures={[
        {
          name: "Available",
          value: <Money nanos={BigInt(found.available_nanos)} />,
          note: `of ${shownCredits(BigInt(found.credits_nanos))} credits; ${shownCredits(BigInt(found.held_nanos))} held by requests that run`,
          large: true,
        },
        {
          name: "Spent today (UTC)",
          value: <Credits of={today.charge_credits} />,
          note: `${shortly(today.requests)} requests`,
        },
        {
          name: "Spent this month",
          value: <Credits of={month.charge_credits} />,
          note: `${shortly(month.requests)} requests`,
        },
        { name: "Plan", value: found.plan, href: link("limits"), note: "See the limits" },
      ]}
    />
  );
}

function Spending() {
  const query = period("168");
  const bucket = bucketFor(query);
  const loaded = useData("/user/usage/series", { query: { ...query, bucket } });
  return (
    <Panel title="Spending">
      <Shown loaded={loaded}>
        {({ data }) => {
          const total = data.reduce((sum, point) => sum + BigInt(point.charge_nanos), 0n);
          const requests = data.reduce((sum, point) => sum + point.requests, 0);
          return (
            <Chart
              title={bucket === "day" ? "Credits a day (UTC)" : "Credits an hour"}
              summary={`${exactCredits(total)} credits for ${counted(requests)} requests.`}
              times={data.map(({ start }) => start)}
              bucket={bucket}
              lines={[{ name: "Charge", values: data.map((point) => point.charge_nanos) }]}
              written={(value) => shownCredits(BigInt(Math.round(value)))}
            />
          );
        }}
      </Shown>
    </Panel>
  );
}

function ByModel() {
  const query = period("168");
  const loaded = useData("/user/usage/aggregate", { query: { ...query, by: ["model"], limit: 10 } });
  return (
    <Panel title="By model" aside={<a href={link("usage", query)}>All requests</a>}>
      <List
        loaded={loaded}
        caption="Usage by model"
        nothing={
          <>
            <p>No request was made in this period.</p>
            <a class="button" href={link("connect")}>
              Make the first one
            </a>
          </>
        }
        keyOf={(row) => row.model ?? ""}
        link={(row) => link("usage", { ...query, model: row.model ?? "" })}
        columns={[
          { name: "Model", of: (row) => <span class="cut">{row.model}</span> },
          { name: "Requests", of: (row) => <Count of={row.requests} />, number: true },
          { name: "Failed", of: (row) => <Count of={row.errors} />, number: true, wide: true },
          { name: "Tokens in", of: (row) => <Count of={row.prompt_tokens} />, number: true, wide: true },
          { name: "Tokens out", of: (row) => <Count of={row.completion_tokens} />, number: true, wide: true },
          { name: "Charge", of: (row) => <Credits of={row.charge_credits} />, number: true },
        ]}
      />
    </Panel>
  );
}
