/** What was done with the keys of the org, by whom and from where. */
import { Panel, useData } from "../parts/data";
import { Choice, NothingInPeriod, Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Status } from "../parts/numbers";
import { route } from "../parts/routing";
import { List } from "../parts/table";
import { When } from "../parts/times";

const OUTCOMES: [string, string][] = [
  ["success", "Success"],
  ["refused", "Refused"],
];

export function AuditLog() {
  const { outcome, cursor, key_id } = route.value.filters;
  const loaded = useData("/user/api-keys/audit-logs", {
    query: { ...period("720"), outcome, key_id, cursor, limit: 50 },
  });
  return (
    <>
      <Heading title="Audit log" />
      <div class="filters">
        <Period usual="720" />
        <Choice name="outcome" label="Outcome" options={OUTCOMES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Events of keys"
          nothing={<NothingInPeriod>Nothing was done with a key in this period.</NothingInPeriod>}
          keyOf={({ id }) => id}
          columns={[
            { name: "Time", of: (row) => <When at={row.occurred_at} seconds /> },
            { name: "Action", of: (row) => <code>{row.action}</code> },
            { name: "Outcome", of: (row) => <Status of={row.outcome} /> },
            { name: "Key", of: (row) => <code>{row.key_id}</code> },
            { name: "Address", of: (row) => row.ip ?? "–", wide: true },
          ]}
        />
      </Panel>
    </>
  );
}
