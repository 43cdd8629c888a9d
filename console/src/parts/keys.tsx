/** Keys, as owners and operators see them: the list, and the panel of one key with what may be done to it. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { notify } from "./basics";
import { Panel, Shown, useData } from "./data";
import { FinalDialog, FormDialog, revealKey, type Values } from "./dialogs";
import { Facts } from "./figures";
import { bodyOf, cacheOf, graceHours, type Key, KeyFields, RotationFields } from "./key_fields";
import { Count, Credits, counted, Status } from "./numbers";
import { link, route, withFilters } from "./routing";
import { change, type Query } from "./session";
import { Side } from "./side";
import { type Column, List } from "./table";
import { When } from "./times";

/** The paths under which the caller may manage keys. */
export type KeysPath = "/user/api-keys" | "/admin/keys";
type Asked = "edit" | "rotate" | "revoke" | null;

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

const nameOf = (row: Key): string => row.name || row.masked_key;
const pathOf = (path: KeysPath) => `${path}/{key_id}` as const;
const given = ({ id }: { id: string }) => ({ path: { key_id: id } });

/** A list of keys, and the panel of the one that is open. */
export function KeyList({
  path,
  query = {},
  columns = [],
  nothing,
  about,
}: {
  path: KeysPath;
  query?: Query;
  /** Shown besides the usual ones. */
  columns?: Column<Key>[];
  nothing: ComponentChildren;
  /** Shown in the panel of a key besides its facts. */
  about?: (row: Key) => ComponentChildren;
}) {
  const { q, status, environment, sort, cursor, open } = route.value.filters;
  const loaded = useData(path, {
    query: { q, status, environment, sort, cursor, limit: 50, include: "usage", ...query },
  });
  return (
    <>
      <Panel>
        <List
          loaded={loaded}
          caption="Keys"
          nothing={nothing}
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Name", of: (row) => <span class="cut">{nameOf(row)}</span>, sort: "name" },
            { name: "Key", of: (row) => <code>{row.masked_key}</code>, wide: true },
            { name: "State", of: (row) => <Status of={row.status} /> },
            { name: "Environment", of: (row) => row.environment, wide: true },
            ...columns,
            { name: "Requests", of: (row) => <Count of={row.usage?.requests} />, number: true, wide: true },
            { name: "Spent", of: (row) => <Credits of={row.usage?.charge_credits} />, number: true },
            { name: "Last used", of: (row) => <When at={row.last_used_at} />, sort: "last_used_at", wide: true },
            { name: "Expires", of: (row) => (row.expires_at ? <When at={row.expires_at} /> : "never"), wide: true },
          ]}
        />
      </Panel>
      {open && <OneKey key={open} path={path} id={open} about={about} />}
    </>
  );
}

export async function createKey(path: KeysPath, body: Record<string, unknown>, idempotencyKey: string) {
  const made = await change("post", path, { body, idempotencyKey });
  revealKey(`The key ${nameOf(made)} is created`, made.key);
}

/** At once, since it can be undone. */
async function setActive(path: KeysPath, row: Key, active: boolean): Promise<void> {
  const again = async () => setActive(path, row, !active);
  await change("post", active ? `${pathOf(path)}/enable` : `${pathOf(path)}/disable`, given(row));
  notify(`${nameOf(row)} is ${active ? "enabled" : "disabled"}.`, () => void again());
}

function OneKey({
  path,
  id,
  about,
}: {
  path: KeysPath;
  id: string;
  about: ((row: Key) => ComponentChildren) | undefined;
}) {
  const loaded = useData(pathOf(path), given({ id }));
  const [asked, ask] = useState<Asked>(null);
  const row = loaded.data;
  return (
    <>
      <Side title={row ? nameOf(row) : "Key"}>
        <Shown loaded={loaded}>
          {(key) => (
            <>
              <Actions path={path} row={key} ask={ask} />
              <Facts facts={factsOf(key)} />
              {about?.(key)}
              <p>
                <a class="text" href={link("usage", { key_id: key.id, hours: "720" })}>
                  Requests of this key
                </a>
              </p>
            </>
          )}
        </Shown>
      </Side>
      {row && <KeyDialog path={path} row={row} asked={asked} close={() => ask(null)} />}
    </>
  );
}

function Actions({ path, row, ask }: { path: KeysPath; row: Key; ask: (asked: Asked) => void }) {
  if (row.status === "revoked") return null;
  return (
    <div class="actions start">
      <button type="button" onClick={() => ask("edit")}>
        Edit
      </button>
      <button type="button" onClick={() => ask("rotate")}>
        Rotate
      </button>
      <button type="button" onClick={() => void setActive(path, row, row.status === "disabled")}>
        {row.status === "disabled" ? "Enable" : "Disable"}
      </button>
      <button type="button" class="danger" onClick={() => ask("revoke")}>
        Revoke
      </button>
    </div>
  );
}

function factsOf(row: Key): [string, ComponentChildren][] {
  return [
    ["Key", <code key="key">{row.masked_key}</code>],
    ["Id", <code key="id">{row.id}</code>],
    ["State", <Status key="status" of={row.status} />],
    ["Environment", row.environment],
    ["Owner", row.email],
    ["Scopes", row.scopes.join(", ")],
    ["Models", row.allowed_models?.join(", ") ?? "all"],
    ["Networks", row.ip_allowlist?.join(", ") ?? "all"],
    ["Budget", row.budget_credits ? <BudgetOf key="budget" row={row} /> : "none"],
    ["Tokens a month", ofQuota(row.tokens_used_in_month, row.tokens_per_month)],
    ["Tokens in all", ofQuota(row.tokens_used_in_all, row.tokens_in_all)],
    ["Open requests", ofQuota(row.open_requests, row.max_concurrent_requests)],
    ["Completion cache", cacheOf(row).toLowerCase()],
    ["Expires", row.expires_at ? <When key="expires" at={row.expires_at} /> : "never"],
    ["Created", <When key="created" at={row.created_at} />],
    ["Last used", <When key="used" at={row.last_used_at} />],
    ...otherKeysOf(row),
  ];
}

function otherKeysOf({ rotated_to, rotated_from }: Key): [string, ComponentChildren][] {
  const others = Object.entries({ "Replaced by": rotated_to, Replaces: rotated_from });
  return others.flatMap(([name, id]) => (id ? [[name, <OtherKey key={name} id={id} />]] : []));
}

const OtherKey = ({ id }: { id: string }) => (
  <a class="text" href={withFilters({ open: id })}>
    <code>{id}</code>
  </a>
);

const ofQuota = (used: number | null, limit: number | null): string =>
  limit === null ? "no limit" : `${counted(used ?? 0)} of ${counted(limit)}`;

const BudgetOf = ({ row }: { row: Key }) => (
  <>
    <Credits of={row.budget_spent_credits} /> of <Credits of={row.budget_credits} /> spent
    {row.budget_reset && row.budget_reset !== "never" && ` (${row.budget_reset})`}
  </>
);

interface DialogProps {
  path: KeysPath;
  row: Key;
  close: () => void;
}

function KeyDialog({ asked, ...props }: DialogProps & { asked: Asked }) {
  if (asked === "edit") return <EditDialog {...props} />;
  if (asked === "rotate") return <RotateDialog {...props} />;
  if (asked === "revoke") return <RevokeDialog {...props} />;
  return null;
}

function EditDialog({ path, row, close }: DialogProps) {
  const submit = (values: Values) => change("patch", pathOf(path), { ...given(row), body: bodyOf(values, row) });
  return (
    <FormDialog title={`Edit ${nameOf(row)}`} action="Save" onClose={close} submit={submit}>
      <KeyFields row={row} operator={path === "/admin/keys"} />
    </FormDialog>
  );
}

function RotateDialog({ path, row, close }: DialogProps) {
  const submit = async (values: Values) => {
    const body = { grace_hours: graceHours(values) };
    const made = await change("post", `${pathOf(path)}/rotate`, { ...given(row), body });
    revealKey(`The new key of ${nameOf(row)}`, made.key);
  };
  return (
    <FormDialog title={`Rotate ${nameOf(row)}`} action="Rotate" onClose={close} submit={submit}>
      <RotationFields />
    </FormDialog>
  );
}

function RevokeDialog({ path, row, close }: DialogProps) {
  const submit = () => change("delete", pathOf(path), given(row));
  return (
    <FinalDialog title={`Revoke ${nameOf(row)}`} action="Revoke" name={nameOf(row)} onClose={close} submit={submit}>
      <p>Programs that use this key are refused from now on. This cannot be undone.</p>
    </FinalDialog>
  );
}
