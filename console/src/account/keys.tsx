/** The keys of the org: the list, and the panel of one key with what may be done to it. */
import { useState } from "preact/hooks";
import { Icon, notify } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { FinalDialog, FormDialog, revealKey, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { bodyOf, graceHours, KeyFields, RotationFields } from "../parts/key_fields";
import { Credits, counted, Status } from "../parts/numbers";
import { link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { Side } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";

type Key = Answer<"/user/api-keys", "get">["data"][number];
type Asked = "create" | "edit" | "rotate" | "revoke" | null;

export const KEY_STATES: [string, string][] = [
  ["active", "Active"],
  ["disabled", "Disabled"],
  ["expired", "Expired"],
  ["revoked", "Revoked"],
];
export const ENVIRONMENTS: [string, string][] = [
  ["live", "Live"],
  ["test", "Test"],
];

export function Keys() {
  const { q, status, environment, sort, cursor, open } = route.value.filters;
  const loaded = useData("/user/api-keys", {
    query: { q, status, environment, sort, cursor, limit: 50, include: "usage" },
  });
  const [asked, ask] = useState<Asked>(null);
  const key = loaded.data?.data.find(({ id }) => id === open);
  const create = async (values: Values, idempotencyKey: string) => {
    const made = await change("post", "/user/api-keys", { body: bodyOf(values), idempotencyKey });
    revealKey(`The key ${made.name} is created`, made.key);
  };
  return (
    <>
      <Heading title="Keys">
        <button type="button" class="primary" onClick={() => ask("create")}>
          <Icon name="plus" /> Create a key
        </button>
      </Heading>
      <div class="filters">
        <Search label="Find by name or beginning" />
        <Choice name="status" label="State" options={KEY_STATES} />
        <Choice name="environment" label="Environment" options={ENVIRONMENTS} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Keys"
          nothing={<p>There is no key yet. A program needs one to use the API.</p>}
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Name", of: (row) => row.name || row.masked_key, sort: "name" },
            { name: "Key", of: (row) => <code>{row.masked_key}</code>, wide: true },
            { name: "State", of: (row) => <Status of={row.status} /> },
            { name: "Environment", of: (row) => row.environment, wide: true },
            { name: "Owner", of: (row) => <span class="cut">{row.email}</span>, wide: true },
            { name: "Spent", of: (row) => <Credits of={row.usage?.charge_credits} />, number: true },
            { name: "Last used", of: (row) => <When at={row.last_used_at} />, sort: "last_used_at" },
          ]}
        />
      </Panel>
      {key && <OneKey row={key} ask={ask} />}
      {asked === "create" && (
        <FormDialog title="Create a key" action="Create" onClose={() => ask(null)} submit={create}>
          <KeyFields creates />
        </FormDialog>
      )}
      {key && <KeyDialogs row={key} asked={asked} close={() => ask(null)} />}
    </>
  );
}

const path = (row: Key) => ({ path: { key_id: row.id } });

/** At once, since it can be undone. */
async function setActive(row: Key, active: boolean): Promise<void> {
  const again = async () => setActive(row, !active);
  if (active) await change("post", "/user/api-keys/{key_id}/enable", path(row));
  else await change("post", "/user/api-keys/{key_id}/disable", path(row));
  notify(`${row.name} is ${active ? "enabled" : "disabled"}.`, () => void again());
}

function OneKey({ row, ask }: { row: Key; ask: (asked: Asked) => void }) {
  const usable = row.status === "active" || row.status === "disabled";
  return (
    <Side title={row.name}>
      {usable && (
        <div class="actions start">
          <button type="button" onClick={() => ask("edit")}>
            Edit
          </button>
          <button type="button" onClick={() => ask("rotate")}>
            Rotate
          </button>
          <button type="button" onClick={() => void setActive(row, row.status === "disabled")}>
            {row.status === "disabled" ? "Enable" : "Disable"}
          </button>
          <button type="button" class="danger" onClick={() => ask("revoke")}>
            Revoke
          </button>
        </div>
      )}
      <Facts facts={factsOf(row)} />
      <p>
        <a class="text" href={link("usage", { key_id: row.id, hours: "720" })}>
          Requests of this key
        </a>
      </p>
    </Side>
  );
}

function factsOf(row: Key): [string, preact.ComponentChildren][] {
  return [
    ["Key", <code key="key">{row.masked_key}</code>],
    ["Id", <code key="id">{row.id}</code>],
    ["State", <Status key="status" of={row.status} />],
    ["Environment", row.environment],
    ["Scopes", row.scopes.join(", ")],
    ["Models", row.allowed_models?.join(", ") ?? "all"],
    ["Networks", row.ip_allowlist?.join(", ") ?? "all"],
    ["Budget", row.budget_credits ? <BudgetOf key="budget" row={row} /> : "none"],
    [
      "Tokens a month",
      row.tokens_per_month === null
        ? "no limit"
        : `${counted(row.tokens_used_in_month ?? 0)} of ${counted(row.tokens_per_month)}`,
    ],
    ["Expires", row.expires_at ? <When key="expires" at={row.expires_at} /> : "never"],
    ["Created", <When key="created" at={row.created_at} />],
    ["Last used", <When key="used" at={row.last_used_at} />],
  ];
}

const BudgetOf = ({ row }: { row: Key }) => (
  <>
    <Credits of={row.budget_spent_credits} /> of <Credits of={row.budget_credits} /> spent
    {row.budget_reset && row.budget_reset !== "never" && ` (${row.budget_reset})`}
  </>
);

function KeyDialogs({ row, asked, close }: { row: Key; asked: Asked; close: () => void }) {
  if (asked === "edit") {
    const submit = (values: Values) =>
      change("patch", "/user/api-keys/{key_id}", { ...path(row), body: bodyOf(values, row) });
    return (
      <FormDialog title={`Edit ${row.name}`} action="Save" onClose={close} submit={submit}>
        <KeyFields row={row} />
      </FormDialog>
    );
  }
  if (asked === "rotate") {
    const submit = async (values: Values) => {
      const made = await change("post", "/user/api-keys/{key_id}/rotate", {
        ...path(row),
        body: { grace_hours: graceHours(values) },
      });
      revealKey(`The new key of ${row.name}`, made.key);
    };
    return (
      <FormDialog title={`Rotate ${row.name}`} action="Rotate" onClose={close} submit={submit}>
        <RotationFields />
      </FormDialog>
    );
  }
  if (asked === "revoke") {
    const submit = () => change("delete", "/user/api-keys/{key_id}", path(row));
    return (
      <FinalDialog title={`Revoke ${row.name}`} action="Revoke" name={row.name} onClose={close} submit={submit}>
        <p>Programs that use this key are refused from now on. This cannot be undone.</p>
      </FinalDialog>
    );
  }
  return null;
}
