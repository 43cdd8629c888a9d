/** An org's own keys for upstreams, as its users and operators see them. */
import { useState } from "preact/hooks";
import { Icon, notify } from "./basics";
import { Panel, useData } from "./data";
import { FinalDialog, FormDialog, SecretInput, Select, type Values } from "./dialogs";
import { Status } from "./numbers";
import { type Answer, change, type Given } from "./session";
import { List } from "./table";
import { When } from "./times";

type UpstreamKeysPath = "/user/upstream-keys" | "/admin/orgs/{org_id}/upstream-keys";
type Found = Answer<"/user/upstream-keys", "get">;
type Row = Found["data"][number];
type Asked = { does: "store"; upstream: string } | { does: "delete"; row: Row } | null;

const MEANINGS: Partial<Record<Row["state"], string>> = {
  outdated:
    "the upstream has another address now, or takes no such keys any more. Calls are refused until the key is stored again or deleted.",
  locked:
    "this server lacks the VAULT_KEY that it was stored with. Calls are refused until the key is stored again or deleted.",
};

export function UpstreamKeys({ path, given = {} }: { path: UpstreamKeysPath; given?: Given }) {
  const loaded = useData(path, given);
  const [asked, ask] = useState<Asked>(null);
  const close = () => ask(null);
  const available = loaded.data?.available ?? [];
  return (
    <>
      <Panel
        title="Upstream keys"
        aside={
          <button
            type="button"
            class="primary"
            disabled={!loaded.data}
            onClick={() => ask({ does: "store", upstream: "openrouter" })}
          >
            <Icon name="plus" /> Store a key
          </button>
        }
      >
        <p class="soft">
          With a key of the org's own account at an upstream, its calls go there with that key, and cost only the fee.
        </p>
        <List
          loaded={loaded}
          caption="Upstream keys"
          nothing={
            <>
              <p>No key is stored. All calls use the operator's accounts, at the usual price.</p>
              <button type="button" onClick={() => ask({ does: "store", upstream: "openrouter" })}>
                Store the first key
              </button>
            </>
          }
          keyOf={({ upstream }) => upstream}
          columns={[
            { name: "Upstream", of: (row) => <span class="cut">{row.upstream_name}</span> },
            { name: "Key", of: (row) => <code>…{row.last_four}</code>, wide: true },
            { name: "State", of: (row) => <Status of={row.state} /> },
            { name: "Stored", of: (row) => <When at={row.updated_at} />, wide: true },
            { name: "", of: (row) => <Actions row={row} ask={ask} /> },
          ]}
        />
        {Object.entries(MEANINGS).map(
          ([state, meaning]) =>
            loaded.data?.data.some((row) => row.state === state) && (
              <p key={state} class="soft small">
                <b>{state}</b>: {meaning}
              </p>
            ),
        )}
      </Panel>
      {asked?.does === "store" && (
        <StoreDialog path={path} given={given} available={available} upstream={asked.upstream} close={close} />
      )}
      {asked?.does === "delete" && <DeleteDialog path={path} given={given} row={asked.row} close={close} />}
    </>
  );
}

const Actions = ({ row, ask }: { row: Row; ask: (asked: Asked) => void }) => (
  <div class="group">
    <button
      type="button"
      class="quiet"
      aria-label={`Replace the key for ${row.upstream_name}`}
      onClick={() => ask({ does: "store", upstream: row.upstream })}
    >
      Replace
    </button>
    <button
      type="button"
      class="quiet"
      aria-label={`Delete the key for ${row.upstream_name}`}
      onClick={() => ask({ does: "delete", row })}
    >
      Delete
    </button>
  </div>
);

interface DialogProps {
  path: UpstreamKeysPath;
  given: Given;
  close: () => void;
}

const one = (path: UpstreamKeysPath) => `${path}/{upstream}` as const;
const pathOf = (given: Given, upstream: string): Given => ({ path: { ...given.path, upstream } });

function StoreDialog({
  path,
  given,
  available,
  upstream,
  close,
}: DialogProps & Pick<Found, "available"> & { upstream: string }) {
  const submit = async (values: Values) => {
    const body = { key: values.text("key") };
    await change("put", one(path), { ...pathOf(given, values.text("upstream")), body });
    notify("The key is stored. It is used from the next request on.");
  };
  return (
    <FormDialog title="Store an upstream key" action="Store" onClose={close} submit={submit}>
      <Select
        label="Upstream"
        name="upstream"
        options={available.map((one) => [one.upstream, one.name])}
        defaultValue={upstream}
      />
      <SecretInput label="Key of the account there" name="key" note="It replaces a key that is there." />
    </FormDialog>
  );
}

function DeleteDialog({ path, given, row: { upstream, upstream_name: name }, close }: DialogProps & { row: Row }) {
  const submit = () => change("delete", one(path), pathOf(given, upstream));
  return (
    <FinalDialog title={`Delete the key for ${name}`} action="Delete" name={name} onClose={close} submit={submit}>
      <p>Calls use the operator's account there again, at the usual price. This cannot be undone.</p>
    </FinalDialog>
  );
}
