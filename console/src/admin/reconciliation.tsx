/** Each day at OpenRouter by our books, and by its bill. */
import { useState } from "preact/hooks";
import { Chart } from "../parts/chart";
import { type Loaded, Panel, useData } from "../parts/data";
import { FormDialog, Input, Secret, type Values } from "../parts/dialogs";
import { Choice } from "../parts/filters";
import { Heading } from "../parts/frame";
import { shownCredits } from "../parts/money";
import { Count, Credits, counted, percent } from "../parts/numbers";
import { go, linkTo, route } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { List } from "../parts/table";
import { bucketName, When } from "../parts/times";
import { dayName, OneDay, State } from "./reconciled_day";

type Page = Answer<"/admin/reconciliation", "get">;
type Settings = Answer<"/admin/system/settings", "get">;

const VERDICTS: [string, string][] = [
  ["agrees", "Agrees"],
  ["explained", "Explained"],
  ["differs", "Differs"],
];
const DAY_MS = 24 * 3_600_000;
const STATED_DAYS = 30;
const MILLION = 1_000_000;

export const Reconciliation = () => {
  const day = route.value.parts[1];
  return day ? <OneDay key={day} day={day} /> : <Days />;
};

function Days() {
  const { verdict, sort, cursor } = route.value.filters;
  const loaded = useData("/admin/reconciliation", { query: { verdict, sort, cursor, limit: 50 } });
  const settings = useData("/admin/system/settings");
  const [asked, ask] = useState(false);
  const isOff = settings.data && !settingOf(settings.data, "OPENROUTER_MANAGEMENT_KEY")?.is_set;
  return (
    <>
      <Heading title="Reconciliation">
        {!isOff && (
          <button type="button" class="primary" onClick={() => ask(true)}>
            Reconcile a day
          </button>
        )}
      </Heading>
      {isOff ? <Off /> : <Terms settings={settings.data} />}
      {!verdict && !cursor && <Charts loaded={loaded} />}
      <div class="filters">
        <Choice name="verdict" label="State" options={VERDICTS} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Days"
          nothing={
            <p>
              {isOff
                ? "No day was reconciled."
                : "No day was reconciled yet. A day is compared by itself six hours after its end (UTC)."}
            </p>
          }
          keyOf={({ day }) => day}
          link={({ day }) => linkTo("reconciliation", day)}
          columns={[
            { name: "Day (UTC)", of: ({ day }) => <span class="nowrap">{dayName(day)}</span>, sort: "day" },
            { name: "State", of: (one) => <State of={one} /> },
            { name: "Difference", of: (one) => <Credits of={one.difference_credits} />, number: true },
            { name: "ppm", of: (one) => <Count of={one.difference_ppm} />, number: true },
            { name: "Our books", of: (one) => <Credits of={one.our_cost_credits} />, number: true },
            { name: "OpenRouter's bill", of: (one) => <Credits of={one.their_cost_credits} />, number: true },
            { name: "Allowed ppm", of: (one) => <Count of={one.tolerance_ppm} />, number: true, wide: true },
            { name: "Compared", of: (one) => <When at={one.reconciled_at} />, wide: true },
          ]}
        />
      </Panel>
      {asked && <RunDialog close={() => ask(false)} />}
    </>
  );
}

const settingOf = ({ settings }: Settings, name: string) => settings.find((one) => one.name === name);

const Off = () => (
  <Panel title="Reconciliation is off">
    <p>
      OpenRouter states what a day cost only to a management key, and <code>OPENROUTER_MANAGEMENT_KEY</code> is not set.
      Create one in the settings of your OpenRouter account, under Management keys. It cannot make completions. Then set
      it where the server runs, and restart it:
    </p>
    <Secret label="Setting" text="OPENROUTER_MANAGEMENT_KEY=" />
    <p class="soft">
      From then on each day is compared with the bill by itself, and an alert tells of a difference. Days of the last 30
      can be compared by hand.
    </p>
  </Panel>
);

/** Nothing until the settings are read: what they say is no more than a help. */
function Terms({ settings }: { settings: Settings | null }) {
  if (!settings) return null;
  const tolerance = Number(settingOf(settings, "RECONCILIATION_TOLERANCE")?.value ?? 0);
  const isOfKey = settingOf(settings, "RECONCILIATION_SCOPE")?.value !== "account";
  return (
    <p class="soft">
      Our books are compared with OpenRouter's bill{" "}
      {isOfKey ? "of the key that pays for our calls" : "of the whole account"}, six hours after the end of a day and on
      the two days after. A day agrees within {percent(tolerance, 1)} ({counted(Math.round(tolerance * MILLION))} ppm)
      and a nano for each request: <code>RECONCILIATION_TOLERANCE</code>.
    </p>
  );
}

function Charts({ loaded }: { loaded: Loaded<Page> }) {
  const days = (loaded.data?.data ?? []).filter(({ verdict }) => verdict).sort((a, b) => a.day.localeCompare(b.day));
  const newest = days.at(-1);
  if (!newest || days.length < 2) return null;
  const each = { times: days.map(({ day }) => `${day}T00:00:00Z`), bucket: "day", kind: "lines" as const };
  const beyond = days.filter(({ verdict }) => verdict !== "agrees").length;
  return (
    <div class="columns">
      <Panel title="Cost">
        <Chart
          {...each}
          title="Credits a day (UTC)"
          summary={`${bucketName(each.times.at(-1) ?? "", "day")}: ${counted(newest.difference_ppm ?? 0)} ppm apart.`}
          lines={[
            { name: "Our books", values: days.map(({ our_cost_nanos }) => our_cost_nanos) },
            { name: "OpenRouter's bill", values: days.map(({ their_cost_nanos }) => their_cost_nanos) },
          ]}
          written={(nanos) => shownCredits(BigInt(Math.round(nanos)))}
        />
      </Panel>
      <Panel title="Difference">
        <Chart
          {...each}
          title="Millionths (ppm) by day (UTC)"
          summary={
            beyond ? `${beyond} of ${days.length} days are beyond the tolerance.` : "All days are within the tolerance."
          }
          lines={[
            { name: "Difference", values: days.map(({ difference_ppm }) => difference_ppm) },
            { name: "Allowed", values: days.map(({ tolerance_ppm }) => tolerance_ppm) },
          ]}
          written={counted}
        />
      </Panel>
    </div>
  );
}

const daysAgo = (days: number): string => new Date(Date.now() - days * DAY_MS).toISOString().slice(0, 10);

function RunDialog({ close }: { close: () => void }) {
  const run = async (values: Values) => {
    const day = values.text("day");
    await change("post", "/admin/reconciliation/{day}/run", { path: { day } });
    go(linkTo("reconciliation", day));
  };
  return (
    <FormDialog title="Reconcile a day" action="Reconcile" onClose={close} submit={run}>
      <p class="soft">
        The statement of the day is read from OpenRouter anew, with <code>OPENROUTER_MANAGEMENT_KEY</code>. The outcome
        replaces the one before.
      </p>
      <Input
        label="Day (UTC)"
        name="day"
        type="date"
        required
        min={daysAgo(STATED_DAYS)}
        max={daysAgo(1)}
        defaultValue={daysAgo(1)}
        hint={`OpenRouter states the last ${STATED_DAYS} days that are over.`}
      />
    </FormDialog>
  );
}
