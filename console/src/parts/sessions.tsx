/** The sessions of a person: where one is signed in, and signing out there. */
import { notify } from "./basics";
import { Panel, useData } from "./data";
import { Choice } from "./filters";
import { Heading } from "./frame";
import { route } from "./routing";
import { change, me, type Query } from "./session";
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
    </>
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
        { name: "Person", of: (row) => row.email },
        { name: "Signed in with", of: (row) => row.way },
        { name: "Signed in", of: (row) => <When at={row.signed_in_at} /> },
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
