/** All orgs. */
import { useState } from "preact/hooks";
import { Icon } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { FormDialog, Input, Select, type Values } from "../parts/dialogs";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, Credits, Status } from "../parts/numbers";
import { go, linkTo, route } from "../parts/routing";
import { change } from "../parts/session";
import { List } from "../parts/table";
import { When } from "../parts/times";
import { Org } from "./org";
import { usePlans } from "./plans";

const STATES: [string, string][] = [
  ["active", "Active"],
  ["suspended", "Suspended"],
];

export function Orgs() {
  const [, id] = route.value.parts;
  return id ? <Org key={id} id={id} /> : <OrgList />;
}

function OrgList() {
  const { q, status, plan, sort, cursor } = route.value.filters;
  const loaded = useData("/admin/orgs", { query: { q, status, plan, sort, cursor, limit: 50 } });
  const plans = usePlans();
  const [creates, setCreates] = useState(false);
  return (
    <>
      <Heading title="Orgs">
        <button type="button" class="primary" onClick={() => setCreates(true)}>
          <Icon name="plus" /> Create an org
        </button>
      </Heading>
      <div class="filters">
        <Search label="Find by name or id" />
        <Choice name="status" label="State" options={STATES} />
        <Choice name="plan" label="Plan" options={plans} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Orgs"
          nothing={
            <>
              <p>There is no org yet. An org pays for the requests of its users.</p>
              <button type="button" onClick={() => setCreates(true)}>
                Create the first org
              </button>
            </>
          }
          keyOf={(row) => row.id}
          link={(row) => linkTo("orgs", row.id)}
          columns={[
            { name: "Name", of: (row) => <span class="cut">{row.name}</span>, sort: "name" },
            { name: "State", of: (row) => <Status of={row.status} /> },
            { name: "Plan", of: (row) => row.plan, wide: true },
            { name: "Users", of: (row) => <Count of={row.users} />, number: true, wide: true },
            { name: "Balance", of: (row) => <Credits of={row.credits} />, number: true, sort: "credits" },
            { name: "Held", of: (row) => <Credits of={row.held_credits} />, number: true, wide: true },
            { name: "Created", of: (row) => <When at={row.created_at} />, sort: "created_at", wide: true },
          ]}
        />
      </Panel>
      {creates && <CreateOrg plans={plans} close={() => setCreates(false)} />}
    </>
  );
}

function CreateOrg({ plans, close }: { plans: [string, string][]; close: () => void }) {
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = { name: values.text("name"), plan: values.text("plan") };
    const made = await change("post", "/admin/orgs", { body, idempotencyKey });
    go(linkTo("orgs", made.id));
  };
  return (
    <FormDialog title="Create an org" action="Create" ready={plans.length > 0} onClose={close} submit={submit}>
      <Input label="Name" name="name" required maxLength={200} />
      <Select key={plans.length} label="Plan" name="plan" options={plans} defaultValue="free" />
    </FormDialog>
  );
}
