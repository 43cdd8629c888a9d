/** What holds a key back, how much of it is used, and when it starts anew. */
import { Panel, Shown, useData } from "../parts/data";
import { Facts, Meter } from "../parts/figures";
import { Heading } from "../parts/frame";
import { Credits, counted } from "../parts/numbers";
import type { Answer } from "../parts/session";
import { Table } from "../parts/table";
import { When } from "../parts/times";

type Found = Answer<"/user/monitor", "get">;
type Windows = NonNullable<Found["limits"]["org"]>["requests"];

interface Row {
  name: string;
  used: number;
  limit: number | null;
  resetsAt: string | null;
}

const rowsOf = (what: string, windows: Windows): Row[] =>
  (["minute", "hour", "day"] as const).map((name) => ({
    name: `${what} ${name === "hour" ? "an" : "a"} ${name}`,
    used: windows[name].used,
    limit: windows[name].limit,
    resetsAt: windows[name].resets_at,
  }));

export function Limits() {
  const loaded = useData("/user/monitor", {}, 15);
  return (
    <>
      <Heading title="Limits" />
      <Shown loaded={loaded}>{(found) => <All found={found} />}</Shown>
    </>
  );
}

function All({ found }: { found: Found }) {
  const { org, user, key } = found.limits;
  return (
    <>
      <Scope title={`Your org, on the plan ${found.plan}`} of={org} />
      {user && <Scope title="You" of={user} />}
      {key && <Scope title="This key" of={key} />}
      <Allowances found={found} />
    </>
  );
}

function Scope({ title, of }: { title: string; of: { requests: Windows; tokens: Windows } }) {
  return (
    <Panel title={title}>
      <Table
        caption={title}
        rows={[...rowsOf("Requests", of.requests), ...rowsOf("Tokens", of.tokens)]}
        keyOf={({ name }) => name}
        columns={[
          { name: "Limit", of: (row) => row.name },
          { name: "Used", of: (row) => counted(row.used), number: true },
          { name: "At most", of: (row) => (row.limit === null ? "no limit" : counted(row.limit)), number: true },
          { name: "", of: (row) => <Meter used={row.used} limit={row.limit} label={row.name} />, wide: true },
          { name: "Starts anew", of: (row) => <When at={row.resetsAt} seconds /> },
        ]}
      />
    </Panel>
  );
}

function Allowances({ found }: { found: Found }) {
  const { budget, tokens_in_month: month, tokens_in_all: all } = found.allowances;
  if (!budget && !month && !all) return null;
  return (
    <Panel title="What this key may spend">
      <Facts
        facts={[
          ...(budget
            ? ([
                [
                  "Budget",
                  <>
                    <Credits of={budget.remaining_credits} /> of <Credits of={budget.limit_credits} /> left
                  </>,
                ],
                ["The budget starts anew", <When key="budget" at={budget.resets_at} />],
              ] as [string, preact.ComponentChildren][])
            : []),
          ...[month, all].flatMap((quota, index): [string, preact.ComponentChildren][] =>
            quota
              ? [
                  [
                    index ? "Tokens in all" : "Tokens this month",
                    `${counted(quota.remaining)} of ${counted(quota.limit)} left`,
                  ],
                ]
              : [],
          ),
        ]}
      />
    </Panel>
  );
}
