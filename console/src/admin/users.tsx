/** All users, and the users of one org. */
import { useState } from "preact/hooks";
import { AddButton, type MayBeFirst } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { FormDialog, Input, Select, type Values } from "../parts/dialogs";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, Status } from "../parts/numbers";
import { go, linkTo, route } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { type Column, List } from "../parts/table";
import { FilterTabs, type Tab } from "../parts/tabs";
import { When } from "../parts/times";
import { Limits } from "./limits";
import { OrgFilter, OrgInput } from "./pickers";
import { ROLES, roleName, User } from "./user";

type Row = Answer<"/admin/users", "get">["data"][number];

const STATES: [string, string][] = [
  ["active", "Active"],
  ["disabled", "Disabled"],
];

export function Users() {
  const [, id] = route.value.parts;
  if (id) return <User key={id} id={id} />;
  const ofRoles = route.value.filters.tab === "limits";
  return (
    <>
      <Heading title="Users">
        <CreateUser />
      </Heading>
      <FilterTabs tabs={TABS} label="Users" />
      {ofRoles ? <LimitsOfRoles /> : <UserList />}
    </>
  );
}

const TABS: Tab[] = [
  ["", "Users"],
  ["limits", "Limits by role"],
];

const LimitsOfRoles = () => (
  <div class="stack">
    <p class="soft">They hold for each user of a role, with all keys together, unless the user has limits.</p>
    <Limits subject={{ role: "member" }} title="Each member" />
    <Limits subject={{ role: "admin" }} title="Each operator" />
  </div>
);

const ORG: Column<Row> = {
  name: "Org",
  of: ({ org_id, org_name }) => (
    <a class="text cut" href={linkTo("orgs", org_id)}>
      {org_name}
    </a>
  ),
  wide: true,
};

export function UserList({ orgId }: { orgId?: string }) {
  const { q, role, status, sort, cursor, org_id } = route.value.filters;
  const loaded = useData("/admin/users", {
    query: { q, role, status, sort, cursor, org_id: orgId ?? org_id, limit: 50 },
  });
  return (
    <>
      <div class="filters">
        <Search label="Find by email or name" />
        <Choice name="role" label="Role" options={ROLES} />
        <Choice name="status" label="State" options={STATES} />
        {orgId ? (
          <div class="end">
            <CreateUser orgId={orgId} />
          </div>
        ) : (
          <OrgFilter />
        )}
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Users"
          nothing={
            <>
              <p>There is no user yet. Keys belong to users.</p>
              <CreateUser first="Create the first user" {...(orgId ? { orgId } : {})} />
            </>
          }
          keyOf={(row) => row.id}
          link={(row) => linkTo("users", row.id)}
          columns={[
            { name: "Email", of: (row) => <span class="cut">{row.email}</span>, sort: "email" },
            { name: "Name", of: (row) => <span class="cut">{row.name || "–"}</span>, sort: "name", wide: true },
            { name: "Role", of: (row) => roleName(row.role) },
            { name: "State", of: (row) => <Status of={row.status} /> },
            ...(orgId ? [] : [ORG]),
            { name: "Keys", of: (row) => <Count of={row.keys} />, number: true, wide: true },
            { name: "Created", of: (row) => <When at={row.created_at} />, sort: "created_at", wide: true },
          ]}
        />
      </Panel>
    </>
  );
}

function CreateUser({ orgId, first }: { orgId?: string } & MayBeFirst) {
  const [creates, setCreates] = useState(false);
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = {
      email: values.text("email"),
      name: values.text("name"),
      role: values.text("role"),
      org_id: orgId ?? values.text("org_id"),
    };
    const made = await change("post", "/admin/users", { body, idempotencyKey });
    go(linkTo("users", made.id));
  };
  return (
    <>
      <AddButton label="Create a user" first={first} onClick={() => setCreates(true)} />
      {creates && (
        <FormDialog title="Create a user" action="Create" onClose={() => setCreates(false)} submit={submit}>
          {!orgId && <OrgInput required />}
          <Input label="Email" name="email" type="email" required />
          <Input label="Name" name="name" maxLength={200} />
          <Select label="Role" name="role" options={ROLES} />
        </FormDialog>
      )}
    </>
  );
}
