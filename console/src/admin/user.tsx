/** The page of one user: role, keys, sessions, limits, and what may be done. */
import { useState } from "preact/hooks";
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { FinalDialog, FormDialog, Input, reveal, Select, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { Heading } from "../parts/frame";
import { Count, Status } from "../parts/numbers";
import { go, link, linkTo } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { SessionList } from "../parts/sessions";
import { openTab, type Tab, Tabs } from "../parts/tabs";
import { When } from "../parts/times";
import { AdminKeys } from "./keys";
import { Limits } from "./limits";
import { OrgInput } from "./pickers";
import { UsageByModel } from "./usage_by_model";

type Row = Answer<"/admin/users/{user_id}", "get">;
type Asked = "edit" | "link" | "password" | "delete" | null;

export const ROLES: [string, string][] = [
  ["member", "Member"],
  ["admin", "Operator"],
];
export const roleName = (role: string): string => (role === "admin" ? "operator" : role);

const TABS: Tab[] = [
  ["", "Keys"],
  ["usage", "Usage"],
  ["limits", "Limits"],
  ["sessions", "Sessions"],
];

const given = ({ id }: { id: string }) => ({ path: { user_id: id } });

export function User({ id }: { id: string }) {
  const loaded = useData("/admin/users/{user_id}", given({ id }));
  return <Shown loaded={loaded}>{(user) => <Page user={user} />}</Shown>;
}

function Page({ user }: { user: Row }) {
  const [asked, ask] = useState<Asked>(null);
  return (
    <div class="entry">
      <Heading
        title={
          <>
            {user.name || user.email} <Status of={user.status} />
          </>
        }
      >
        <button type="button" class="primary" onClick={() => ask("link")}>
          Create a sign-in link
        </button>
        <button type="button" onClick={() => ask("edit")}>
          Edit
        </button>
        {user.has_password && (
          <button type="button" onClick={() => ask("password")}>
            Remove the password
          </button>
        )}
        <button type="button" onClick={() => void setStatus(user, user.status === "active" ? "disabled" : "active")}>
          {user.status === "active" ? "Disable" : "Enable"}
        </button>
        <button type="button" class="danger" onClick={() => ask("delete")}>
          Delete
        </button>
      </Heading>
      <Panel>
        <Facts
          facts={[
            ["Email", user.email],
            ["Role", roleName(user.role)],
            [
              "Org",
              <a key="org" class="text" href={linkTo("orgs", user.org_id)}>
                {user.org_name}
              </a>,
            ],
            ["Keys", <Count key="keys" of={user.keys} />],
            ["Password", user.has_password ? "set" : "none"],
            ["Created", <When key="created" at={user.created_at} />],
            ["Id", <code key="id">{user.id}</code>],
          ]}
        />
      </Panel>
      <Tabs tabs={TABS} label={`Sections of ${user.email}`} />
      <Section user={user} />
      <UserDialog user={user} asked={asked} close={() => ask(null)} />
    </div>
  );
}

function Section({ user }: { user: Row }) {
  switch (openTab()) {
    case "usage":
      return <UsageByModel filters={{ user_id: user.id }} />;
    case "limits":
      return <Limits subject={{ user_id: user.id }} />;
    case "sessions":
      return (
        <Panel>
          <SessionList query={{ everyone: true, user_id: user.id }} />
        </Panel>
      );
    default:
      return <AdminKeys query={{ user_id: user.id }} userId={user.id} />;
  }
}

/** At once, since it can be undone. */
async function setStatus(user: Row, status: Row["status"]): Promise<void> {
  await change("patch", "/admin/users/{user_id}", { ...given(user), body: { status } });
  notify(`${user.email} is ${status}.`, () => void setStatus(user, status === "active" ? "disabled" : "active"));
}

interface DialogProps {
  user: Row;
  close: () => void;
}

function UserDialog({ asked, ...props }: DialogProps & { asked: Asked }) {
  switch (asked) {
    case "edit":
      return <EditDialog {...props} />;
    case "link":
      return <LinkDialog {...props} />;
    case "password":
      return <PasswordDialog {...props} />;
    case "delete":
      return <DeleteDialog {...props} />;
    default:
      return null;
  }
}

function EditDialog({ user, close }: DialogProps) {
  const submit = (values: Values) =>
    change("patch", "/admin/users/{user_id}", {
      ...given(user),
      body: {
        email: values.text("email"),
        name: values.text("name"),
        role: values.text("role"),
        org_id: values.text("org_id"),
      },
    });
  return (
    <FormDialog title={`Edit ${user.email}`} action="Save" onClose={close} submit={submit}>
      <Input label="Email" name="email" type="email" required defaultValue={user.email} />
      <Input label="Name" name="name" maxLength={200} defaultValue={user.name} />
      <Select label="Role" name="role" options={ROLES} defaultValue={user.role} />
      <OrgInput required defaultValue={user.org_id} />
    </FormDialog>
  );
}

function LinkDialog({ user, close }: DialogProps) {
  const submit = async () => {
    const made = await change("post", "/admin/users/{user_id}/sign-in-link", given(user));
    reveal({
      title: `A sign-in link for ${user.email}`,
      secret: made.link,
      hint: "Hand it over on a safe way: whoever opens it is signed in. It works once, within 10 minutes.",
    });
  };
  return (
    <FormDialog title="Create a sign-in link" action="Create" onClose={close} submit={submit}>
      <p>{user.email} signs in with the link, and can set a password then.</p>
    </FormDialog>
  );
}

function PasswordDialog({ user, close }: DialogProps) {
  const submit = async () => {
    const { ended } = await change("delete", "/admin/users/{user_id}/password", given(user));
    notify(`The password is removed. ${ended} sessions ended.`);
  };
  return (
    <FinalDialog title="Remove the password" action="Remove" name={user.email} onClose={close} submit={submit}>
      <p>The user is signed out everywhere, and signs in with a key or a sign-in link until a new password is set.</p>
    </FinalDialog>
  );
}

function DeleteDialog({ user, close }: DialogProps) {
  const submit = async () => {
    await change("delete", "/admin/users/{user_id}", given(user));
    go(link("users"));
    notify(`${user.email} is deleted.`);
  };
  return (
    <FinalDialog title={`Delete ${user.email}`} action="Delete" name={user.email} onClose={close} submit={submit}>
      <p>All keys of the user are revoked. The usage is kept. This cannot be undone.</p>
    </FinalDialog>
  );
}
