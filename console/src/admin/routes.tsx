/** Routes: which of your servers answers for which model, and at what price. */
import { useState } from "preact/hooks";
import { AddButton, type MayBeFirst, notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { FormDialog, Input, Select, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { Choice, Search } from "../parts/filters";
import { perMillion, perToken } from "../parts/money";
import { Count, Status } from "../parts/numbers";
import { go, link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";
import { SERVING_STATES } from "./upstreams";

type Row = Answer<"/admin/models/registry", "get">["data"][number];

const priceOf = ({ pricing }: Row, name: string): string => perMillion(pricing[name] as string | undefined) ?? "";

export function Routes() {
  const { model, upstream_id, state, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/models/registry", {
    query: { model, upstream_id, state, sort, cursor, limit: 50 },
  });
  return (
    <>
      <div class="filters">
        <Search name="model" label="Exact model id" />
        <Search name="upstream_id" label="Upstream (id)" />
        <Choice name="state" label="State" options={SERVING_STATES} />
      </div>
      <Panel title="Routes" aside={<span class="soft small">Credits for a million tokens, without the markup</span>}>
        <List
          loaded={loaded}
          caption="Routes"
          nothing={
            <>
              <p>No model is served by a server of your own.</p>
              <AddRoute first="Add the first route" />
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Model", of: (one) => one.model, sort: "model" },
            { name: "Upstream", of: (one) => <span class="cut">{one.upstream_name}</span>, wide: true },
            { name: "State", of: (one) => <Status of={one.state} /> },
            { name: "Priority", of: (one) => <Count of={one.priority} />, number: true, wide: true },
            { name: "Weight", of: (one) => <Count of={one.weight} />, number: true, wide: true },
            { name: "In", of: (one) => priceOf(one, "prompt"), number: true },
            { name: "Out", of: (one) => priceOf(one, "completion"), number: true },
          ]}
        />
      </Panel>
      {open && <OneRoute key={open} id={open} />}
    </>
  );
}

/** Model and upstream together identify a route. Only what is given changes. */
const put = (row: Row, changed: Record<string, unknown>) =>
  change("post", "/admin/models/registry", {
    body: { model: row.model, upstream_id: row.upstream_id, ...changed },
  });

async function setState(row: Row, state: Row["state"]): Promise<void> {
  await put(row, { state });
  notify(`The route is ${state}.`, () => void setState(row, row.state));
}

/** Undo makes the same route again. */
async function remove(row: Row): Promise<void> {
  const { id, model, upstream_id, upstream_name, created_at, updated_at, ...rest } = row;
  await change("delete", "/admin/models/registry/{route_id}", { path: { route_id: id } });
  go(withFilters({ open: "" }));
  notify(`The route of ${model} is removed.`, () => void put(row, rest));
}

function OneRoute({ id }: { id: string }) {
  const loaded = useData("/admin/models/registry/{route_id}", { path: { route_id: id } });
  return (
    <EntrySide loaded={loaded} kind="Route" title={({ model }) => model}>
      {(row) => <WholeRoute row={row} />}
    </EntrySide>
  );
}

function WholeRoute({ row }: { row: Row }) {
  const [asked, ask] = useState(false);
  const submit = (values: Values) => put(row, { ...bodyOf(values), pricing: { ...row.pricing, ...pricesOf(values) } });
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
          Remove
        </button>
      </div>
      <Facts
        facts={[
          ["Id", <code key="id">{row.id}</code>],
          [
            "Upstream",
            <a key="upstream" class="text" href={link("upstreams", { open: row.upstream_id })}>
              {row.upstream_name}
            </a>,
          ],
          ["Name on that server", <code key="model">{row.upstream_model}</code>],
          ["State", <Status key="state" of={row.state} />],
          ["Priority", `${row.priority}; lower numbers come first, OpenRouter has 100`],
          ["Weight", <Count key="weight" of={row.weight} />],
          ["Tokens of prompt and answer", <Count key="context" of={row.context_tokens} />],
          ["Tokens of an answer", <Count key="output" of={row.most_output} />],
          ...Object.entries(row.pricing).map(([name, price]): [string, string] => [
            `Price: ${name.replaceAll("_", " ")}`,
            typeof price === "string" ? price : JSON.stringify(price),
          ]),
          ["Created", <When key="created" at={row.created_at} />],
          ["Changed", <When key="updated" at={row.updated_at} />],
        ]}
      />
      {asked && (
        <FormDialog title={`Edit the route of ${row.model}`} action="Save" onClose={() => ask(false)} submit={submit}>
          <Fields row={row} />
        </FormDialog>
      )}
    </>
  );
}

export function AddRoute({ first }: MayBeFirst) {
  const [asked, ask] = useState(false);
  const submit = (values: Values) =>
    change("post", "/admin/models/registry", {
      body: {
        model: values.text("model"),
        upstream_id: values.text("upstream_id"),
        ...bodyOf(values),
        pricing: pricesOf(values),
      },
    });
  return (
    <>
      <AddButton label="Add a route" first={first} onClick={() => ask(true)} />
      {asked && (
        <FormDialog title="Add a route" action="Add" onClose={() => ask(false)} submit={submit}>
          <Input label="Model, as clients name it" name="model" required placeholder="our/llama" spellcheck={false} />
          <UpstreamSelect />
          <Fields />
        </FormDialog>
      )}
    </>
  );
}

function UpstreamSelect() {
  const loaded = useData("/admin/upstreams", { query: { limit: 100, sort: "name:asc" } });
  return (
    <Shown loaded={loaded}>
      {({ data }) =>
        data.length ? (
          <Select label="Upstream" name="upstream_id" options={data.map(({ id, name }) => [id, name])} />
        ) : (
          <p>
            There is no server yet.{" "}
            <a class="text" href={link("upstreams")}>
              Add an upstream first
            </a>
            .
          </p>
        )
      }
    </Shown>
  );
}

function Fields({ row }: { row?: Row }) {
  return (
    <>
      <Input
        label="Name on that server"
        name="upstream_model"
        placeholder="The same"
        spellcheck={false}
        defaultValue={row?.upstream_model ?? ""}
      />
      <div class="pair">
        <Input
          label="In, credits a million tokens"
          name="prompt"
          param="pricing.prompt"
          inputMode="decimal"
          required
          defaultValue={row ? priceOf(row, "prompt") : ""}
        />
        <Input
          label="Out, credits a million tokens"
          name="completion"
          param="pricing.completion"
          inputMode="decimal"
          required
          defaultValue={row ? priceOf(row, "completion") : ""}
        />
      </div>
      <div class="pair">
        <Input
          label="Priority"
          name="priority"
          type="number"
          min={0}
          max={1000}
          required
          hint="Lower numbers come first. OpenRouter has 100."
          defaultValue={String(row?.priority ?? 50)}
        />
        <Input
          label="Weight"
          name="weight"
          type="number"
          min={1}
          max={1000}
          required
          hint="Among routes of the same priority."
          defaultValue={String(row?.weight ?? 1)}
        />
      </div>
      <div class="pair">
        <Input
          label="Tokens of prompt and answer"
          name="context_tokens"
          type="number"
          min={1}
          placeholder="As the server tells"
          defaultValue={row?.context_tokens?.toString() ?? ""}
        />
        <Input
          label="Tokens of an answer"
          name="most_output"
          type="number"
          min={1}
          placeholder="No limit"
          defaultValue={row?.most_output?.toString() ?? ""}
        />
      </div>
    </>
  );
}

const pricesOf = (values: Values) => ({
  prompt: perToken(values.text("prompt")),
  completion: perToken(values.text("completion")),
});

const bodyOf = (values: Values) => ({
  ...(values.optional("upstream_model") ? { upstream_model: values.text("upstream_model") } : {}),
  priority: values.number("priority"),
  weight: values.number("weight"),
  context_tokens: values.number("context_tokens"),
  most_output: values.number("most_output"),
});
