/** Secrets that Tollgate keeps for servers: the tokens of Hugging Face. */
import { useState } from "preact/hooks";
import { Icon, notify } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { FinalDialog, FormDialog, Input, SecretInput, type Values } from "../parts/dialogs";
import { Heading } from "../parts/frame";
import { link } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { List } from "../parts/table";
import { When } from "../parts/times";

type Row = Answer<"/admin/hf-tokens", "get">["data"][number];
type Asked = { does: "store" | "delete"; name: string } | null;

export function Vault() {
  const loaded = useData("/admin/hf-tokens");
  const [asked, ask] = useState<Asked>(null);
  return (
    <>
      <Heading title="Vault">
        <button type="button" class="primary" onClick={() => ask({ does: "store", name: "default" })}>
          <Icon name="plus" /> Store a token
        </button>
      </Heading>
      <Panel title="Tokens of Hugging Face">
        <p class="soft">
          For servers of yours that download models: <code>python -m tollgate hf-token</code> prints one.
        </p>
        <List
          loaded={loaded}
          caption="Tokens of Hugging Face"
          nothing={
            <>
              <p>No token is stored.</p>
              <button type="button" onClick={() => ask({ does: "store", name: "default" })}>
                Store the first token
              </button>
            </>
          }
          keyOf={({ name }) => name}
          columns={[
            { name: "Name", of: (row) => <span class="cut">{row.name}</span> },
            { name: "Token", of: (row) => <code>…{row.last_four}</code>, wide: true },
            { name: "Stored", of: (row) => <When at={row.updated_at} />, wide: true },
            { name: "", of: (row) => <Actions row={row} ask={ask} /> },
          ]}
        />
      </Panel>
      <p class="soft">
        The upstream keys of an org are on{" "}
        <a class="text" href={link("orgs")}>
          its page
        </a>
        , under <i>Upstream keys</i>.
      </p>
      {asked?.does === "store" && <StoreDialog name={asked.name} close={() => ask(null)} />}
      {asked?.does === "delete" && <DeleteDialog name={asked.name} close={() => ask(null)} />}
    </>
  );
}

const Actions = ({ row: { name }, ask }: { row: Row; ask: (asked: Asked) => void }) => (
  <div class="group">
    <button
      type="button"
      class="quiet"
      aria-label={`Replace the token ${name}`}
      onClick={() => ask({ does: "store", name })}
    >
      Replace
    </button>
    <button
      type="button"
      class="quiet"
      aria-label={`Delete the token ${name}`}
      onClick={() => ask({ does: "delete", name })}
    >
      Delete
    </button>
  </div>
);

function StoreDialog({ name, close }: { name: string; close: () => void }) {
  const submit = async (values: Values) => {
    const body = { name: values.text("name"), token: values.text("token") };
    await change("put", "/admin/hf-tokens", { body });
    notify("The token is stored.");
  };
  return (
    <FormDialog title="Store a token of Hugging Face" action="Store" onClose={close} submit={submit}>
      <Input
        label="Name"
        name="name"
        required
        maxLength={100}
        defaultValue={name}
        hint="A token of this name is replaced."
      />
      <SecretInput label="Token" name="token" placeholder="hf_…" />
    </FormDialog>
  );
}

function DeleteDialog({ name, close }: { name: string; close: () => void }) {
  const submit = () => change("delete", "/admin/hf-tokens/{name}", { path: { name } });
  return (
    <FinalDialog title={`Delete the token ${name}`} action="Delete" name={name} onClose={close} submit={submit}>
      <p>Servers that ask for it get none from now on. This cannot be undone.</p>
    </FinalDialog>
  );
}
