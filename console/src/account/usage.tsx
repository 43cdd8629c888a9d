/** The requests of the org, with a panel for one of them. */
import { Icon } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Facts } from "../parts/figures";
import { Choice, NothingInPeriod, Period, period, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, Credits, Duration } from "../parts/numbers";
import { Attempts, Basis, Ledger, Numbers, Outcome, type Pair, Section } from "../parts/request";
import { link, route, withFilters } from "../parts/routing";
import { type Answer, fileOf, me } from "../parts/session";
import { Side } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";

type Life = Answer<"/user/usage/{request_id}", "get">;

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
  return (
    <>
      <Heading title="Usage">
        <a class="button" href={fileOf("/user/usage/export", { ...query, format: "csv", totals: true })} download>
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
          nothing={<NothingInPeriod>No request was made in this period.</NothingInPeriod>}
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
      {open && <OneRequest key={open} id={open} />}
    </>
  );
}

/** Read by its id, since the list may not have it. */
function OneRequest({ id }: { id: string }) {
  const loaded = useData("/user/usage/{request_id}", { path: { request_id: id } });
  return (
    <Side title="Request">
      <Shown loaded={loaded}>{(life) => <WholeLife life={life} />}</Shown>
    </Side>
  );
}

const WholeLife = ({ life }: { life: Life }) => (
  <div class="life">
    <Section title="Overview">
      <Facts facts={overviewOf(life)} />
    </Section>
    <Section title="Charge">
      <Charge life={life} />
    </Section>
    <Section title="Attempts">
      <Attempts of={life.attempts} />
    </Section>
    <Section title="Transactions">
      <Ledger of={life.transfers} />
    </Section>
  </div>
);

const overviewOf = (life: Life): Pair[] => [
  ["Id", <code key="id">{life.id}</code>],
  ["State", <Outcome key="state" row={life} />],
  ["Time", <When key="at" at={life.created_at} seconds />],
  ["Key", <KeyOf key="key" life={life} />],
  ["Model", life.model],
  ...(life.served_model && life.served_model !== life.model ? [["Served by", life.served_model] satisfies Pair] : []),
  ["Endpoint", life.streamed ? `${life.endpoint}, streamed` : life.endpoint],
  ["First token", <Duration key="first" ms={life.first_token_ms} />],
  ["Duration", <Duration key="duration" ms={life.duration_ms} />],
  ["Id of the answer", life.generation_id ? <code key="generation">{life.generation_id}</code> : "–"],
];

/** People see only their own keys. */
function KeyOf({ life: { key_id, key_name, user_id } }: { life: Life }) {
  const name = key_name || key_id;
  if (user_id !== me.value?.user_id) return <>{name}</>;
  return (
    <a class="text" href={link("keys", { open: key_id })}>
      {name}
    </a>
  );
}

function Charge({ life: { hold, settlement: of, ...life } }: { life: Life }) {
  if (!of.settled_at) {
    return (
      <p class="soft">
        It is not settled yet. Until then <Credits of={hold.amount_credits} /> credits are held.
      </p>
    );
  }
  return (
    <>
      <Basis of={of.basis} />
      <Facts
        facts={[
          ["Charge", <Credits key="charge" of={of.charge_credits} />],
          ["Refunded", <Credits key="refunded" of={of.refunded_credits} />],
          ["Tokens in", <Count key="in" of={life.prompt_tokens} />],
          ["of them cached", <Count key="cached" of={life.cached_tokens} />],
          ["Tokens out", <Count key="out" of={life.completion_tokens} />],
          ["Settled", <When key="settled" at={of.settled_at} seconds />],
        ]}
      />
      <Numbers title="Usage that the upstream stated" of={of.usage ?? {}} />
    </>
  );
}
