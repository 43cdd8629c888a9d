/** The usage of an org or a user by model. */
import { Panel, useData } from "../parts/data";
import { NothingInPeriod, Period, period } from "../parts/filters";
import { Count, Credits } from "../parts/numbers";
import { type Filters, link, route } from "../parts/routing";
import { List } from "../parts/table";

export function UsageByModel({ filters }: { filters: Filters }) {
  const { sort, cursor } = route.value.filters;
  const query = { ...period("720"), ...filters };
  const loaded = useData("/admin/usage/aggregate", { query: { ...query, by: ["model"], sort, cursor, limit: 50 } });
  const totals = loaded.data?.totals;
  return (
    <>
      <div class="filters">
        <Period usual="720" />
        <a class="text" href={link("usage", query)}>
          Requests of this period
        </a>
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Usage by model"
          nothing={<NothingInPeriod>No request was made in this period.</NothingInPeriod>}
          keyOf={(row) => row.model ?? ""}
          link={(row) => link("usage", { ...query, model: row.model ?? "" })}
          columns={[
            { name: "Model", of: (row) => <span class="cut">{row.model}</span> },
            { name: "Requests", of: (row) => <Count of={row.requests} />, number: true, sort: "requests" },
            { name: "Failed", of: (row) => <Count of={row.errors} />, number: true, sort: "errors", wide: true },
            { name: "Tokens in", of: (row) => <Count of={row.prompt_tokens} />, number: true, wide: true },
            { name: "Tokens out", of: (row) => <Count of={row.completion_tokens} />, number: true, wide: true },
            { name: "Charge", of: (row) => <Credits of={row.charge_credits} />, number: true, sort: "charge" },
            { name: "Cost", of: (row) => <Credits of={row.cost_credits} />, number: true, sort: "cost", wide: true },
            {
              name: "Margin",
              of: (row) => <Credits of={row.margin_credits} />,
              number: true,
              sort: "margin",
              wide: true,
            },
          ]}
          {...(totals
            ? {
                totals: [
                  "All",
                  <Count key="requests" of={totals.requests} />,
                  <Count key="errors" of={totals.errors} />,
                  <Count key="in" of={totals.prompt_tokens} />,
                  <Count key="out" of={totals.completion_tokens} />,
                  <Credits key="charge" of={totals.charge_credits} />,
                  <Credits key="cost" of={totals.cost_credits} />,
                  <Credits key="margin" of={totals.margin_credits} />,
                ],
              }
            : {})}
        />
      </Panel>
    </>
  );
}
