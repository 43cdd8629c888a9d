/** All keys, and the keys of one org or user. */
import type { FunctionComponent } from "preact";
import { useState } from "preact/hooks";
import { AddButton, type MayBeFirst } from "../parts/basics";
import { FormDialog, type Values } from "../parts/dialogs";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { bodyOf, type Key, KeyFields } from "../parts/key_fields";
import { createKey, ENVIRONMENTS, KEY_STATES, KeyList } from "../parts/keys";
import { linkTo, route } from "../parts/routing";
import type { Query } from "../parts/session";
import { Limits } from "./limits";
import { OrgFilter, UserInput } from "./pickers";

const PATH = "/admin/keys";
const ROLES: [string, string][] = [
  ["member", "Members"],
  ["admin", "Operators"],
];

export function Keys() {
  const { org_id, user_id, role } = route.value.filters;
  return (
    <>
      <Heading title="Keys">
        <CreateKey />
      </Heading>
      <div class="filters">
        <KeyFilters />
        <Choice name="role" label="Owners" options={ROLES} />
        <OrgFilter />
      </div>
      <KeyPanel query={{ org_id, user_id, role }} owner={OwnerAndOrg} />
    </>
  );
}

/** The keys of one org or user, as a section of its page. */
export const AdminKeys = ({ query, userId }: { query: Query; userId?: string }) => (
  <>
    <div class="filters">
      <KeyFilters />
      <div class="end">
        <CreateKey {...(userId ? { userId } : {})} />
      </div>
    </div>
    <KeyPanel query={query} {...(userId ? { userId } : {})} />
  </>
);

const KeyFilters = () => (
  <>
    <Search label="Find by name or beginning" />
    <Choice name="status" label="State" options={KEY_STATES} />
    <Choice name="environment" label="Environment" options={ENVIRONMENTS} />
  </>
);

type OfRow = FunctionComponent<{ row: Key }>;

const KeyPanel = ({ query, userId, owner: Whose = Owner }: { query: Query; userId?: string; owner?: OfRow }) => (
  <KeyList
    path={PATH}
    query={query}
    columns={[{ name: "Owner", of: (row) => <Whose row={row} />, wide: true }]}
    nothing={
      <>
        <p>There is no key yet. A program needs one to use the API.</p>
        <CreateKey first="Create the first key" {...(userId ? { userId } : {})} />
      </>
    }
    about={(row) => (
      <>
        <p>
          A key of{" "}
          <a class="text" href={linkTo("users", row.user_id)}>
            {row.email}
          </a>{" "}
          in{" "}
          <a class="text" href={linkTo("orgs", row.org_id)}>
            {row.org_name}
          </a>
        </p>
        <Limits subject={{ key_id: row.id }} />
      </>
    )}
  />
);

const Owner = ({ row }: { row: Key }) => (
  <a class="cut" href={linkTo("users", row.user_id)}>
    {row.email}
  </a>
);

const OwnerAndOrg = ({ row }: { row: Key }) => (
  <div class="stacked">
    <Owner row={row} />
    <a class="soft small cut" href={linkTo("orgs", row.org_id)}>
      {row.org_name}
    </a>
  </div>
);

function CreateKey({ userId, first }: { userId?: string } & MayBeFirst) {
  const [creates, setCreates] = useState(false);
  const submit = (values: Values, idempotencyKey: string) =>
    createKey(PATH, { ...bodyOf(values), user_id: userId ?? values.text("user_id") }, idempotencyKey);
  return (
    <>
      <AddButton label="Create a key" first={first} onClick={() => setCreates(true)} />
      {creates && (
        <FormDialog title="Create a key" action="Create" onClose={() => setCreates(false)} submit={submit}>
          {!userId && <UserInput required />}
          <KeyFields operator />
        </FormDialog>
      )}
    </>
  );
}
