/** The requests of the org, with a panel for one of them. */
import { Icon } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { Facts } from "../parts/figures";
import { Choice, Period, period, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, Credits, Duration, Status } from "../parts/numbers";
import { route, withFilters } from "../parts/routing";
import { type Answer, fileOf } from "../parts/session";
import { Side } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";

type Row = Answer<"/user/usage", "get">["data"][number];

export const STATES: [string, string][] = [
  ["settled", "Settled"],
  ["held", "Running"],
  ["unsettled", "Unsettled"],
  ["released", "Released, not charged"],
];

export function Usage() {
  const { model, state, key_id, status, cursor, open } = route.value.filters;
  const query = { ...period("168"), model, state, key_id, status };
  const loaded = useData("/user/usage", { query: { ...query, cursor, limit: 50 } });
  const row = loaded.data?.data.find(({ id }) => id === open);
  return (
    <>
      <Heading title="Usage">
        <a class="button" href={fileOf("/user/usage/export", { ...query, format: "csv" })} download>
          <Icon name="down" /> CSV
        </a>
      </Heading>
      <div class="filters">
        <Period usual="168" />
        <Search name="model" label="Model" />
        <Choice name="state" label="State" options={STATES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Requests"
          nothing={<p>No request was made in this period.</p>}
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Time", of: (one) => <When at={one.created_at} seconds /> },
            { name: "Model", of: (one) => <span class="cut">{one.model}</span> },
            { name: "State", of: (one) => <Outcome row={one} /> },
            { name: "Tokens in", of: (one) => <Count of={one.prompt_tokens} />, number: true, wide: true },
            { name: "Tokens out", of: (one) => <Count of={one.completion_tokens} />, number: true, wide: true },
            { name: "Duration", of: (one) => <Duration ms={one.duration_ms} />, number: true, wide: true },
            { name: "Charge", of: (one) => <Credits of={one.charge_credits} />, number: true },
          ]}
        />
      </Panel>
      {row && <OneRequest row={row} />}
    </>
  );
}

const Outcome = ({ row }: { row: Row }) => (
  <>
    <Status of={row.state} />
    {row.status !== null && row.status >= 400 && <code class="soft"> {row.error_code ?? row.status}</code>}
  </>
);

function OneRequest({ row }: { row: Row }) {
  return (
    <Side title="Request">
      <Facts
        facts={[
          ["Id", <code key="id">{row.id}</code>],
          ["Time", <When key="at" at={row.created_at} seconds />],
          ["Model", row.model],
          ...(row.served_model && row.served_model !== row.model
            ? ([["Served by", row.served_model]] as [string, string][])
            : []),
          ["Endpoint", row.endpoint],
          ["Key", <code key="key">{row.key_id}</code>],
          ["State", <Outcome key="state" row={row} />],
          ["Tokens in", <Count key="in" of={row.prompt_tokens} />],
          ["of them cached", <Count key="cached" of={row.cached_tokens} />],
          ["Tokens out", <Count key="out" of={row.completion_tokens} />],
          ["Charge", <Credits key="charge" of={row.charge_credits} />],
          ["First token", <Duration key="first" ms={row.first_token_ms} />],
          ["Duration", <Duration key="duration" ms={row.duration_ms} />],
          ["Settled", <When key="settled" at={row.settled_at} seconds />],
          ["Generation", row.generation_id ? <code key="generation">{row.generation_id}</code> : "–"],
        ]}
      />
      {row.estimated && <p class="soft small">The provider sent no usage, so the tokens are an estimate.</p>}
    </Side>
  );
}
