/** Aliases: names of the operator's that stand for models. */
import { useId, useState } from "preact/hooks";
import { newId } from "../parts/api";
import { AddButton, Icon, type MayBeFirst, notify } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { FormDialog, Input, Lines, Select, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { Choice, Search } from "../parts/filters";
import { Count, percent, Status } from "../parts/numbers";
import { go, link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List, Table } from "../parts/table";
import { When } from "../parts/times";
import { Suggestions, useModels } from "./pickers";
import { SERVING_STATES } from "./upstreams";

type Row = Answer<"/admin/models/aliases", "get">["data"][number];
type Target = Row["targets"][number];

export function Aliases() {
  const { model, state, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/models/aliases", { query: { model, state, sort, cursor, limit: 50 } });
  return (
    <>
      <div class="filters">
        <Search name="model" label="May stand for (exact model id)" />
        <Choice name="state" label="State" options={SERVING_STATES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Aliases"
          nothing={
            <>
              <p>There is no alias. With one you can change the model behind a name that clients use.</p>
              <AddAlias first="Add the first alias" />
            </>
          }
          keyOf={({ name }) => name}
          link={({ name }) => withFilters({ open: name })}
          open={({ name }) => name === open}
          columns={[
            { name: "Name", of: (one) => <span class="cut">{one.name}</span>, sort: "name" },
            { name: "Stands for", of: (one) => <StandsFor row={one} /> },
            { name: "State", of: (one) => <Status of={one.state} /> },
            { name: "Retires", of: (one) => one.retires_on ?? "–", wide: true },
            { name: "Changed", of: (one) => <When at={one.updated_at} />, wide: true },
          ]}
        />
      </Panel>
      {open && <OneAlias key={open} id={open} />}
    </>
  );
}

const shareOf = ({ weight }: Target, { targets }: Row): string =>
  percent(
    weight,
    targets.reduce((all, target) => all + target.weight, 0),
  );

function StandsFor({ row }: { row: Row }) {
  const shown = row.targets.map((one) => (row.targets.length > 1 ? `${one.model} ${shareOf(one, row)}` : one.model));
  return <span class="cut">{shown.join(", ")}</span>;
}

/** Only what is given changes. */
const put = (name: string, changed: Record<string, unknown>) =>
  change("post", "/admin/models/aliases", { body: { name, ...changed } });

async function setState(row: Row, state: Row["state"]): Promise<void> {
  await put(row.name, { state });
  notify(`The alias is ${state}.`, () => void setState(row, row.state));
}

/** Undo makes the same alias again. */
async function remove({ name, created_at, updated_at, ...rest }: Row): Promise<void> {
  await change("delete", "/admin/models/aliases/{name}", { path: { name } });
  go(withFilters({ open: "" }));
  notify(`The alias ${name} is deleted.`, () => void put(name, rest));
}

function OneAlias({ id }: { id: string }) {
  const loaded = useData("/admin/models/aliases/{name}", { path: { name: id } });
  return (
    <EntrySide loaded={loaded} kind="Alias" title={({ name }) => name}>
      {(row) => <WholeAlias row={row} />}
    </EntrySide>
  );
}

function WholeAlias({ row }: { row: Row }) {
  const [asked, ask] = useState(false);
  const submit = (values: Values) => put(row.name, bodyOf(values));
  return (
    <>
      <div class="actions start">
        <button type="button" onClick={() => ask(true)}>
          Edit
        </button>
        <button type="button" onClick={() => void setState(row, row.state === "active" ? "disabled" : "active")}>
          {row.state === "active" ? "Disable" : "Enable"}
        </button>
        <button type="button" class="danger" onClick={() => void remove(row)}>
          Delete
        </button>
      </div>
      {row.description && <p>{row.description}</p>}
      <Facts facts={factsOf(row)} />
      <h3>Targets</h3>
      <p class="soft">One of them serves a call: the same one for the same key or session.</p>
      <Table
        caption="Targets"
        rows={row.targets}
        keyOf={(_, index) => String(index)}
        link={({ model }) => link("models", { open: model })}
        columns={[
          { name: "Model", of: (one) => <span class="cut">{one.model}</span> },
          { name: "Only at", of: (one) => (one.upstream_id ? <code class="cut">{one.upstream_id}</code> : "–") },
          { name: "Weight", of: (one) => <Count of={one.weight} />, number: true },
          { name: "Share", of: (one) => shareOf(one, row), number: true },
        ]}
      />
      <h3>Fallbacks</h3>
      {row.fallbacks.length ? (
        <ol class="steps">
          {row.fallbacks.map((model) => (
            <li key={model}>
              <ModelLink id={model} />
            </li>
          ))}
        </ol>
      ) : (
        <p class="soft">None. When the target fails, the call fails.</p>
      )}
      {asked && (
        <FormDialog title={`Edit ${row.name}`} action="Save" onClose={() => ask(false)} submit={submit}>
          <Fields row={row} />
        </FormDialog>
      )}
    </>
  );
}

const ModelLink = ({ id }: { id: string }) => (
  <a class="text" href={link("models", { open: id })}>
    {id}
  </a>
);

const factsOf = (row: Row): [string, preact.ComponentChildren][] => [
  ["State", <Status key="state" of={row.state} />],
  ["Deprecated on", row.deprecated_on ?? "–"],
  ["Retires on", row.retires_on ? `${row.retires_on}, the last day (UTC)` : "–"],
  ["Replacement", row.replacement ? <ModelLink key="replacement" id={row.replacement} /> : "–"],
  ["Created", <When key="created" at={row.created_at} />],
  ["Changed", <When key="updated" at={row.updated_at} />],
];

export function AddAlias({ first }: MayBeFirst) {
  const [asked, ask] = useState(false);
  const submit = (values: Values) => put(values.text("name"), bodyOf(values));
  return (
    <>
      <AddButton label="Add an alias" first={first} onClick={() => ask(true)} />
      {asked && (
        <FormDialog title="Add an alias" action="Add" onClose={() => ask(false)} submit={submit}>
          <Input
            label="Name, as clients send it"
            name="name"
            required
            maxLength={200}
            placeholder="fast"
            spellcheck={false}
            hint="The name of a model takes its place."
          />
          <Fields />
        </FormDialog>
      )}
    </>
  );
}

function Fields({ row }: { row?: Row }) {
  const [typed, setTyped] = useState("");
  const models = useId();
  const onInput = (event: preact.TargetedInputEvent<HTMLInputElement>) => setTyped(event.currentTarget.value.trim());
  return (
    <>
      <Suggestions id={models} choices={useModels(typed)} />
      <TargetFields of={row?.targets ?? []} models={models} onInput={onInput} />
      <Lines
        label="Fallbacks"
        name="fallbacks"
        placeholder="None"
        hint="Models that are tried in this order when the target fails. One a line."
        defaultValue={row?.fallbacks.join("\n") ?? ""}
      />
      <Input label="Description" name="description" maxLength={500} defaultValue={row?.description ?? ""} />
      <div class="pair">
        <Input
          label="Deprecated on"
          name="deprecated_on"
          type="date"
          hint="Since when clients are asked to leave."
          defaultValue={row?.deprecated_on ?? ""}
        />
        <Input
          label="Retires on"
          name="retires_on"
          type="date"
          hint="The last day (UTC) of service."
          defaultValue={row?.retires_on ?? ""}
        />
      </div>
      <Input
        label="Replacement"
        name="replacement"
        list={models}
        onInput={onInput}
        placeholder="None"
        hint="The model to use instead. Clients are told; their requests are not redirected."
        spellcheck={false}
        defaultValue={row?.replacement ?? ""}
      />
    </>
  );
}

const BLANK: Target = { model: "", weight: 1 };
const rowOf = (target: Target) => ({ ...target, key: newId() });

interface TargetFieldsProps {
  of: Target[];
  /** The id of the list of suggestions. */
  models: string;
  onInput: (event: preact.TargetedInputEvent<HTMLInputElement>) => void;
}

function TargetFields({ of, models, onInput }: TargetFieldsProps) {
  const [rows, setRows] = useState(() => (of.length ? of : [BLANK]).map(rowOf));
  const upstreams = useUpstreams();
  return (
    <fieldset class="targets">
      <legend>Targets</legend>
      {rows.map((target, at) => (
        <div class="target" key={target.key}>
          <Input
            label={`Model ${at + 1}`}
            name="target_model"
            param={`targets.${at}.model`}
            required
            list={models}
            onInput={onInput}
            spellcheck={false}
            defaultValue={target.model}
          />
          <Select
            key={upstreams.length}
            label="Only at"
            name="target_upstream"
            options={upstreams}
            defaultValue={target.upstream_id ?? ""}
          />
          <Input
            label="Weight"
            name="target_weight"
            type="number"
            min={1}
            max={1000}
            required
            defaultValue={String(target.weight)}
          />
          {rows.length > 1 && (
            <button
              type="button"
              class="quiet"
              aria-label={`Remove model ${at + 1}`}
              onClick={() => setRows(rows.filter(({ key }) => key !== target.key))}
            >
              <Icon name="trash" />
            </button>
          )}
        </div>
      ))}
      <button type="button" onClick={() => setRows([...rows, rowOf(BLANK)])}>
        <Icon name="plus" /> Add a target
      </button>
      <small class="soft">One serves a call; the weights are their shares of keys and sessions.</small>
    </fieldset>
  );
}

/** Where a target may be served only. The first is everywhere. */
function useUpstreams(): [id: string, name: string][] {
  const { data } = useData("/admin/upstreams", { query: { limit: 100, sort: "name:asc" } });
  const own = data?.data.map(({ id, name }): [string, string] => [id, name]) ?? [];
  return [["", "Everywhere"], ["openrouter", "OpenRouter"], ...own];
}

function targetsOf(values: Values): Target[] {
  const [models, upstreams, weights] = ["target_model", "target_upstream", "target_weight"].map((name) =>
    values.all(name),
  );
  return (models ?? []).map((model, at) => ({
    model: model.trim(),
    ...(upstreams?.[at] ? { upstream_id: upstreams[at] } : {}),
    weight: Number(weights?.[at] ?? 1),
  }));
}

const bodyOf = (values: Values) => ({
  targets: targetsOf(values),
  fallbacks: values.list("fallbacks") ?? [],
  description: values.text("description"),
  deprecated_on: values.optional("deprecated_on"),
  retires_on: values.optional("retires_on"),
  replacement: values.optional("replacement"),
});
