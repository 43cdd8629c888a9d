/** The limits of an org, a user, a key or a role: what holds, where it comes from, and a dialog that sets its own. */
import { useState } from "preact/hooks";
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { FormDialog, type Values } from "../parts/dialogs";
import { hasLimits, LimitFields, limitsOf, type SixLimits, WINDOWS } from "../parts/limit_fields";
import { Bound, Count } from "../parts/numbers";
import { type Answer, change } from "../parts/session";
import { Table } from "../parts/table";

export type Subject = { org_id: string } | { user_id: string } | { key_id: string } | { role: string };
type Found = Answer<"/admin/limit", "get">;

const FALLBACK = { org: "As the plan", user: "As the role", key: "No limit", role: "No limit" };
const kindOf = (subject: Subject) => Object.keys(subject)[0]?.replace("_id", "") as keyof typeof FALLBACK;

export function Limits({ subject, title = "Limits" }: { subject: Subject; title?: string }) {
  const loaded = useData("/admin/limit", { query: { ...subject } });
  const [sets, setSets] = useState(false);
  return (
    <Panel
      title={title}
      aside={
        <button type="button" disabled={!loaded.data} onClick={() => setSets(true)}>
          Set limits
        </button>
      }
    >
      <Shown loaded={loaded}>{(found) => <InEffect found={found} caption={title} />}</Shown>
      {sets && loaded.data && (
        <LimitsDialog subject={subject} limits={loaded.data.limits} close={() => setSets(false)} />
      )}
    </Panel>
  );
}

const InEffect = ({ found, caption }: { found: Found; caption: string }) => (
  <Table
    caption={caption}
    rows={[...WINDOWS]}
    keyOf={([name]) => name}
    columns={[
      { name: "Limit", of: ([, label]) => label },
      { name: "Own", of: ([name]) => <Count of={found.limits[name]} />, number: true },
      { name: "In effect", of: ([name]) => <Bound of={found.in_effect[name].limit} />, number: true },
      { name: "Set by", of: ([name]) => found.in_effect[name].set_by ?? "–" },
    ]}
  />
);

function LimitsDialog({ subject, limits, close }: { subject: Subject; limits: SixLimits; close: () => void }) {
  const submit = async (values: Values) => {
    await set(subject, limitsOf(values));
    notify("The limits are set.", () => void set(subject, limits));
  };
  return (
    <FormDialog title="Set limits" action="Set limits" onClose={close} submit={submit}>
      <p class="soft">They hold from the next request on.</p>
      <LimitFields limits={limits} none={FALLBACK[kindOf(subject)]} />
    </FormDialog>
  );
}

/** Without any limit, the own limits are removed. */
const set = (subject: Subject, limits: SixLimits): Promise<Found> =>
  hasLimits(limits)
    ? change("post", "/admin/limit", { body: { ...subject, ...limits } })
    : change("delete", "/admin/limit", { query: { ...subject } });
