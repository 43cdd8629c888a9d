/** The plans: what their orgs pay and may use. */
import { useState } from "preact/hooks";
import { Icon } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { FinalDialog, FormDialog, Input, Lines, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { LimitFields, limitsOf, WINDOWS } from "../parts/limit_fields";
import { Bound, Count, Credits, Rate } from "../parts/numbers";
import { go, link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { Side } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";
import { TermFields, termsOf } from "./terms";

type Plan = Answer<"/admin/plans/{plan_id}", "get">;

/** The plans as choices. Empty until they are loaded. */
export function usePlans(): [id: string, name: string][] {
  const { data } = useData("/admin/plans", { query: { limit: 200 } });
  return data?.data.map(({ id, name }) => [id, name]) ?? [];
}

export function Plans() {
  const { q, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/plans", { query: { q, sort, cursor, limit: 50 } });
  const [creates, setCreates] = useState(false);
  return (
    <>
      <Heading title="Plans">
        <button type="button" class="primary" onClick={() => setCreates(true)}>
          <Icon name="plus" /> Create a plan
        </button>
      </Heading>
      <div class="filters">
        <Search label="Find by name or id" />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Plans"
          nothing={
            <>
              <p>There is no plan.</p>
              <button type="button" onClick={() => setCreates(true)}>
                Create the first plan
              </button>
            </>
          }
          keyOf={(row) => row.id}
          link={(row) => withFilters({ open: row.id })}
          open={(row) => row.id === open}
          columns={[
            { name: "Name", of: (row) => <span class="cut">{row.name}</span>, sort: "name" },
            { name: "Id", of: (row) => <code>{row.id}</code>, sort: "id", wide: true },
            { name: "Markup", of: (row) => <Rate of={row.markup} />, number: true },
            {
              name: "Requests a minute",
              of: (row) => <Count of={row.limits.requests_per_minute} />,
              number: true,
              wide: true,
            },
            {
              name: "Tokens a minute",
              of: (row) => <Count of={row.limits.tokens_per_minute} />,
              number: true,
              wide: true,
            },
            {
              name: "Open requests",
              of: (row) => <Count of={row.max_concurrent_requests} />,
              number: true,
              wide: true,
            },
            { name: "Orgs", of: (row) => <Count of={row.orgs} />, number: true },
          ]}
        />
      </Panel>
      {open && <OnePlan key={open} id={open} />}
      {creates && <CreateDialog close={() => setCreates(false)} />}
    </>
  );
}

const given = ({ id }: { id: string }) => ({ path: { plan_id: id } });

function OnePlan({ id }: { id: string }) {
  const loaded = useData("/admin/plans/{plan_id}", given({ id }));
  const [asked, ask] = useState<"edit" | "delete" | null>(null);
  const plan = loaded.data;
  return (
    <>
      <Side title={plan?.name ?? "Plan"}>
        <Shown loaded={loaded}>
          {(found) => (
            <>
              <div class="actions start">
                <button type="button" onClick={() => ask("edit")}>
                  Edit
                </button>
                <button type="button" class="danger" onClick={() => ask("delete")}>
                  Delete
                </button>
              </div>
              <PlanFacts plan={found} />
            </>
          )}
        </Shown>
      </Side>
      {plan && asked === "edit" && <EditDialog plan={plan} close={() => ask(null)} />}
      {plan && asked === "delete" && <DeleteDialog plan={plan} close={() => ask(null)} />}
    </>
  );
}

const PlanFacts = ({ plan }: { plan: Plan }) => (
  <Facts
    facts={[
      ["Id", <code key="id">{plan.id}</code>],
      ["Description", plan.description || "–"],
      ["Markup", plan.markup === null ? "as the setting MARKUP" : <Rate key="markup" of={plan.markup} />],
      ...WINDOWS.map(([name, label]): [string, preact.ComponentChildren] => [
        label,
        <Bound key={name} of={plan.limits[name] ?? null} />,
      ]),
      [
        "Fee of calls with an own upstream key",
        plan.byok_fee_credits === null ? "as the setting BYOK_FEE" : <Credits key="fee" of={plan.byok_fee_credits} />,
      ] as [string, preact.ComponentChildren],
      ["Open requests", <Bound key="open" of={plan.max_concurrent_requests} />],
      [
        "Orgs",
        <a key="orgs" class="text" href={link("orgs", { plan: plan.id })}>
          <Count of={plan.orgs} />
        </a>,
      ],
      ["Created", <When key="created" at={plan.created_at} />],
    ]}
  />
);

const PlanFields = ({ plan }: { plan?: Plan }) => (
  <>
    <Input label="Name" name="name" required maxLength={200} defaultValue={plan?.name ?? ""} />
    <Lines label="Description" name="description" maxLength={1000} defaultValue={plan?.description ?? ""} />
    <TermFields row={plan} none="As the setting" noBound="No limit" />
    <LimitFields limits={plan?.limits ?? null} />
  </>
);

const bodyOf = (values: Values) => ({
  name: values.text("name"),
  description: values.text("description"),
  ...termsOf(values),
  limits: limitsOf(values),
});

function CreateDialog({ close }: { close: () => void }) {
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = { id: values.text("id"), ...bodyOf(values) };
    const made = await change("post", "/admin/plans", { body, idempotencyKey });
    go(withFilters({ open: made.id }));
  };
  return (
    <FormDialog title="Create a plan" action="Create" onClose={close} submit={submit}>
      <Input
        label="Id"
        name="id"
        required
        pattern="[a-z][a-z0-9_\-]{0,62}"
        placeholder="team"
        hint="Small letters, digits, - and _. It cannot be changed."
      />
      <PlanFields />
    </FormDialog>
  );
}

interface DialogProps {
  plan: Plan;
  close: () => void;
}

function EditDialog({ plan, close }: DialogProps) {
  const submit = (values: Values) =>
    change("patch", "/admin/plans/{plan_id}", { ...given(plan), body: bodyOf(values) });
  return (
    <FormDialog title={`Edit ${plan.name}`} action="Save" onClose={close} submit={submit}>
      <p class="soft">A change holds from the next request of every org on the plan.</p>
      <PlanFields plan={plan} />
    </FormDialog>
  );
}

function DeleteDialog({ plan, close }: DialogProps) {
  const submit = async () => {
    await change("delete", "/admin/plans/{plan_id}", given(plan));
    go(withFilters({ open: "" }));
  };
  return (
    <FinalDialog title={`Delete ${plan.name}`} action="Delete" name={plan.name} onClose={close} submit={submit}>
      <p>Only a plan without orgs can be deleted.</p>
    </FinalDialog>
  );
}
