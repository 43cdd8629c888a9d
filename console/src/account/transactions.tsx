/** What came to the balance and what went. */
import { Panel, useData } from "../parts/data";
import { Choice, NothingInPeriod, Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Credits, Status } from "../parts/numbers";
import { link, route } from "../parts/routing";
import { List } from "../parts/table";
import { When } from "../parts/times";

export const KINDS: [string, string][] = [
  ["grant", "Grants"],
  ["charge", "Charges"],
  ["refund", "Refunds"],
  ["adjustment", "Adjustments"],
];

export function Transactions() {
  const { kind, cursor } = route.value.filters;
  const loaded = useData("/user/transactions", { query: { ...period("720"), kind, cursor, limit: 50 } });
  return (
    <>
      <Heading title="Transactions" />
      <div class="filters">
        <Period usual="720" />
        <Choice name="kind" label="Kind" options={KINDS} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Transactions"
          nothing={<NothingInPeriod>Nothing came or went in this period.</NothingInPeriod>}
          keyOf={({ id }) => id}
          columns={[
            { name: "Time", of: (row) => <When at={row.created_at} seconds /> },
            { name: "Kind", of: (row) => <Status of={row.kind} /> },
            { name: "Change", of: (row) => <Credits of={row.change_credits} />, number: true },
            { name: "Balance after", of: (row) => <Credits of={row.balance_after_credits} />, number: true },
            { name: "For", of: (row) => <For id={row.request_id} reason={row.reason} /> },
          ]}
        />
      </Panel>
    </>
  );
}

const For = ({ id, reason }: { id: string | null; reason: string }) =>
  id ? (
    <a class="text" href={link("usage", { hours: "720", open: id })}>
      <code>{id}</code>
    </a>
  ) : (
    <span class="cut">{reason || "–"}</span>
  );
