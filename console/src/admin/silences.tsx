/** Times in which matching alerts are not told: from now on, or planned. */
import { useState } from "preact/hooks";
import { AddButton, type MayBeFirst, notify } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { FormDialog, Input, Lines, type Values } from "../parts/dialogs";
import { Choice } from "../parts/filters";
import { Status } from "../parts/numbers";
import { route } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { List } from "../parts/table";
import { momentOf, When, zoneName } from "../parts/times";

type Silence = Answer<"/admin/alerts/silences", "get">["data"][number];

const STATES: [string, string][] = [
  ["active", "Active"],
  ["planned", "Planned"],
  ["ended", "Ended"],
];

export function Silences() {
  const { state, sort, cursor } = route.value.filters;
  const loaded = useData("/admin/alerts/silences", { query: { state, sort, cursor, limit: 50 } }, 60);
  return (
    <>
      <div class="filters">
        <Choice name="state" label="State" options={STATES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Silences"
          nothing={
            <>
              <p>There is no silence. Every alert is told.</p>
              <AddSilence first="Silence alerts for a time" />
            </>
          }
          keyOf={({ id }) => id}
          columns={[
            { name: "Matches", of: (one) => <Matches of={one} /> },
            { name: "Reason", of: (one) => <span class="prose">{one.reason}</span> },
            { name: "From", of: (one) => <When at={one.starts_at} />, wide: true },
            { name: "Until", of: (one) => <When at={one.ends_at} />, sort: "ends_at" },
            { name: "State", of: (one) => <Status of={one.state} /> },
            { name: "By", of: (one) => <code class="cut">{one.created_by ?? "–"}</code>, wide: true },
            { name: "", of: (one) => <End of={one} /> },
          ]}
        />
      </Panel>
    </>
  );
}

/** Alerts match all that is given. */
function Matches({ of: { rules, subjects, org_ids } }: { of: Silence }) {
  const parts: [string, string[] | null][] = [
    ["rule", rules],
    ["about", subjects],
    ["org", org_ids],
  ];
  const given = parts.filter(([, ids]) => ids);
  if (!given.length) return <>all alerts</>;
  return (
    <span class="stacked">
      {given.map(([name, ids]) => (
        <span key={name}>
          <span class="soft">{name} </span>
          <code class="cut">{ids?.join(", ")}</code>
        </span>
      ))}
    </span>
  );
}

/** Undo makes the same silence again. */
async function end({ id, reason, rules, subjects, org_ids, starts_at, ends_at }: Silence): Promise<void> {
  await change("delete", "/admin/alerts/silences/{silence_id}", { path: { silence_id: id } });
  notify("The silence has ended.", () => {
    const body = { reason, rules, subjects, org_ids, starts_at, ends_at };
    void change("post", "/admin/alerts/silences", { body });
  });
}

const End = ({ of }: { of: Silence }) =>
  of.state === "ended" ? null : (
    <div class="group">
      <button type="button" class="quiet" aria-label={`End: ${of.reason}`} onClick={() => void end(of)}>
        {of.state === "planned" ? "Delete" : "End now"}
      </button>
    </div>
  );

export function AddSilence({ first }: MayBeFirst) {
  const [asked, ask] = useState(false);
  const submit = async (values: Values, idempotencyKey: string) => {
    const starts = values.text("starts_at");
    const body = {
      reason: values.text("reason"),
      rules: values.list("rules"),
      subjects: values.list("subjects"),
      org_ids: values.list("org_ids"),
      ...(starts ? { starts_at: momentOf(starts) } : {}),
      ends_at: momentOf(values.text("ends_at")),
    };
    await change("post", "/admin/alerts/silences", { body, idempotencyKey });
    notify(starts ? "The maintenance window is planned." : "The silence has begun.");
  };
  return (
    <>
      <AddButton label="Add a silence" first={first} onClick={() => ask(true)} />
      {asked && (
        <FormDialog title="Add a silence" action="Add" onClose={() => ask(false)} submit={submit}>
          <p class="soft">
            Alerts that match all that is given are not told. What still fires at the end is told then. Owners are told
            of their own events all the same.
          </p>
          <Lines label="Reason" name="reason" required maxLength={1000} />
          <Lines label="Rules" name="rules" placeholder="All" hint="Ids such as upstream_down, one a line." />
          <Lines label="About" name="subjects" placeholder="All" hint="Ids of upstreams, hosts, keys …, one a line." />
          <Lines label="Orgs" name="org_ids" placeholder="All" hint="Ids, one a line." />
          <div class="pair">
            <Input label={`From (${zoneName()})`} name="starts_at" type="datetime-local" hint="Empty: from now on." />
            <Input label={`Until (${zoneName()})`} name="ends_at" type="datetime-local" required />
          </div>
        </FormDialog>
      )}
    </>
  );
}
