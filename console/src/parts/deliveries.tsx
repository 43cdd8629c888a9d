/** What was told over channels: with its attempts and what the receivers answered. */
import { notify } from "./basics";
import { Panel, useData } from "./data";
import { Facts } from "./figures";
import { Choice } from "./filters";
import { Count, counted, Duration, Status } from "./numbers";
import { route, withFilters } from "./routing";
import { type Answer, change } from "./session";
import { EntrySide } from "./side";
import { List, Table } from "./table";
import { When } from "./times";

type DeliveriesPath = "/admin/alerts/deliveries" | "/user/webhooks/deliveries";
export type Delivery = Answer<"/user/webhooks/deliveries", "get">["data"][number];
interface Named {
  id: string;
  name: string;
}

const STATES: [string, string][] = [
  ["waiting", "Waiting"],
  ["sent", "Sent"],
  ["failed", "Failed"],
];

export interface AlertTold {
  id: string;
  state: string;
}

/** The alerts that a delivery lists. Those of owners, and tests, list none. */
export const alertsOf = ({ content }: Delivery): AlertTold[] =>
  (content as { data?: { alerts?: AlertTold[] } }).data?.alerts ?? [];

/** What it tells, in a few words. */
function told({ event, content }: Delivery): string {
  const { firing, resolved } = ((content as { data?: unknown }).data ?? {}) as Record<string, number>;
  if (firing === undefined) return event;
  const counts = [firing ? `${counted(firing)} firing` : "", resolved ? `${counted(resolved)} resolved` : ""];
  return counts.filter(Boolean).join(", ");
}

const lastOf = ({ attempts }: Delivery) => attempts[attempts.length - 1];

function Outcome({ of }: { of: Delivery }) {
  const last = lastOf(of);
  return <span class="cut">{last ? (last.error ?? `answered ${last.status}`) : "not tried yet"}</span>;
}

export function Deliveries({ path, channels }: { path: DeliveriesPath; channels: Named[] }) {
  const { channel_id, state, event, sort, cursor, open } = route.value.filters;
  const loaded = useData(path, { query: { channel_id, state, event, sort, cursor, limit: 50 } }, 15);
  const isOfOwner = path === "/user/webhooks/deliveries";
  const nameOf = (id: string) => channels.find((one) => one.id === id)?.name ?? id;
  return (
    <>
      <div class="filters">
        <Choice name="channel_id" label="Channel" options={channels.map(({ id, name }) => [id, name])} />
        <Choice name="state" label="State" options={STATES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Deliveries"
          nothing={
            <>
              <p>Nothing was told in the last 30 days. A test is told at once.</p>
              <a class="button" href={withFilters({ tab: isOfOwner ? "" : "channels" })}>
                {channels.length ? "Test" : "Add"} a {isOfOwner ? "webhook" : "channel"}
              </a>
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "What", of: (one) => <span class="cut">{told(one)}</span> },
            { name: "Channel", of: (one) => <span class="cut">{nameOf(one.channel_id)}</span> },
            { name: "State", of: (one) => <Status of={one.state} /> },
            { name: "Tries", of: (one) => <Count of={one.tries} />, number: true, wide: true },
            { name: "Last attempt", of: (one) => <Outcome of={one} />, wide: true },
            { name: "Written", of: (one) => <When at={one.created_at} seconds />, sort: "created_at" },
          ]}
        />
      </Panel>
      {open && <OneDelivery key={open} path={path} id={open} nameOf={nameOf} />}
    </>
  );
}

interface OneProps {
  path: DeliveriesPath;
  id: string;
  nameOf: (id: string) => string;
}

function OneDelivery({ path, id, nameOf }: OneProps) {
  const given = { path: { delivery_id: id } };
  const loaded = useData(`${path}/{delivery_id}` as const, given, 15);
  const resend = async () => {
    await change("post", `${path}/{delivery_id}/resend` as const, given);
    notify("It is sent again in the next round, within seconds where a server sweeps by itself.");
  };
  return (
    <EntrySide loaded={loaded} kind="Delivery" title={told}>
      {(one) => (
        <>
          <div class="actions start">
            <button type="button" disabled={one.state === "waiting"} onClick={() => void resend()}>
              Send again
            </button>
          </div>
          <Facts facts={factsOf(one, nameOf(one.channel_id))} />
          <h3>Attempts</h3>
          <Attempts of={one} />
          <h3>Message</h3>
          <pre class="code">{JSON.stringify(one.content, null, 2)}</pre>
        </>
      )}
    </EntrySide>
  );
}

const factsOf = (one: Delivery, channel: string): [string, preact.ComponentChildren][] => [
  ["State", <Status key="state" of={one.state} />],
  ["Channel", channel],
  ["Event", <code key="event">{one.event}</code>],
  ["Id, the webhook-id", <code key="id">{one.id}</code>],
  ["Written", <When key="written" at={one.created_at} seconds />],
  ...(one.due_at ? [["Next attempt", <When key="due" at={one.due_at} seconds />] as [string, preact.VNode]] : []),
  ["Ended", <When key="ended" at={one.ended_at} seconds />],
];

/** The last ten, the newest first. */
export const Attempts = ({ of }: { of: Delivery }) =>
  of.attempts.length ? (
    <Table
      caption="Attempts"
      rows={[...of.attempts].reverse()}
      keyOf={({ at }, index) => `${at} ${index}`}
      columns={[
        { name: "Time", of: (one) => <When at={one.at} seconds /> },
        {
          name: "Answer",
          of: (one) => (
            <>
              <Status of={one.error ? "failed" : "sent"} />
              <span class="prose">{answerOf(one)}</span>
            </>
          ),
        },
        { name: "Took", of: (one) => <Duration ms={one.took_ms} />, number: true },
      ]}
    />
  ) : (
    <p class="soft">It was not tried yet.</p>
  );

/** An error of HTTP has the status already. */
const answerOf = ({ status, error, answer }: Delivery["attempts"][number]): string =>
  [error ?? (status ? String(status) : ""), answer].filter(Boolean).join(": ") || "–";
