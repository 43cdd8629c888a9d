/** The sessions of a person: where one is signed in, and signing out there. */
import { useState } from "preact/hooks";
import { notify } from "./basics";
import { Panel, useData } from "./data";
import { FormDialog, Input, type Values } from "./dialogs";
import { Choice } from "./filters";
import { Heading } from "./frame";
import { route } from "./routing";
import { change, me, type Query, recognise } from "./session";
import { List } from "./table";
import { When } from "./times";

export function Sessions() {
  const everyone = route.value.filters.everyone === "true";
  return (
    <>
      <Heading title="Sessions">
        <button type="button" onClick={() => void change("delete", "/auth/sessions")}>
          Sign out everywhere
        </button>
      </Heading>
      {me.value?.role === "admin" && (
        <div class="filters">
          <Choice name="everyone" label="Of" all="You" options={[["true", "Everyone"]]} />
        </div>
      )}
      <Panel>
        <SessionList query={{ everyone }} />
      </Panel>
      {me.value?.session && <Password has={me.value.has_password} />}
    </>
  );
}

function Password({ has }: { has: boolean }) {
  const [asked, ask] = useState(false);
  return (
    <Panel
      title="Password"
      aside={
        <button type="button" onClick={() => ask(true)}>
          {has ? "Change it" : "Set a password"}
        </button>
      }
    >
      <p class="soft">
        {has
          ? "You can sign in with your email and a password."
          : "You have no password. With one you can sign in with your email, without a key or a link."}
      </p>
      {asked && <PasswordDialog has={has} close={() => ask(false)} />}
    </Panel>
  );
}

function PasswordDialog({ has, close }: { has: boolean; close: () => void }) {
  const submit = async (values: Values) => {
    const current = values.exact("current");
    await change("post", "/auth/password", {
      body: { password: values.exact("password"), ...(current ? { current } : {}) },
    });
    await recognise();
    notify("The password is set. All your other sessions are ended.");
  };
  return (
    <FormDialog
      title={has ? "Change the password" : "Set a password"}
      action={has ? "Change" : "Set"}
      onClose={close}
      submit={submit}
    >
      {has && (
        <Input
          label="Current password"
          name="current"
          type="password"
          autocomplete="current-password"
          hint="Leave it empty if you signed in by a link within the last 15 minutes."
        />
      )}
      <Input
        label="New password"
        name="password"
        type="password"
        autocomplete="new-password"
        required
        minLength={12}
        hint="12 characters or more, such as four unrelated words."
      />
    </FormDialog>
  );
}

async function end(id: string): Promise<void> {
  await change("delete", "/auth/sessions/{session_id}", { path: { session_id: id } });
  notify("The session is ended.");
}

export function SessionList({ query }: { query: Query }) {
  const loaded = useData("/auth/sessions", { query: { ...query, cursor: route.value.filters.cursor } });
  const own = me.value?.session?.id;
  return (
    <List
      loaded={loaded}
      caption="Sessions"
      nothing={<p>There is no session.</p>}
      keyOf={(row) => row.id}
      columns={[
        { name: "Person", of: (row) => <span class="cut">{row.email}</span> },
        { name: "Signed in with", of: (row) => row.way, wide: true },
        { name: "Signed in", of: (row) => <When at={row.signed_in_at} />, wide: true },
        { name: "Last seen", of: (row) => <When at={row.last_seen_at} /> },
        { name: "Address", of: (row) => row.ip ?? "–", wide: true },
        { name: "Browser", of: (row) => <span class="cut">{row.user_agent ?? "–"}</span>, wide: true },
        {
          name: "",
          of: (row) =>
            row.id === own ? (
              <span class="badge">This one</span>
            ) : (
              <button type="button" class="quiet" onClick={() => void end(row.id)}>
                End
              </button>
            ),
        },
      ]}
    />
  );
}
