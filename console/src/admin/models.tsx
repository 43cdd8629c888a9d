/** The catalogue with its prices, the state of the list in memory, the routes to your own servers, and aliases. */
import { useEffect, useState } from "preact/hooks";
import { notify } from "../parts/basics";
import { type Loaded, Panel, Shown, useData } from "../parts/data";
import { Facts, Figures } from "../parts/figures";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { perMillion } from "../parts/money";
import { Count, counted, lasting, percent, Status } from "../parts/numbers";
import { link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List, Table } from "../parts/table";
import { FilterTabs } from "../parts/tabs";
import { When } from "../parts/times";
import { AddAlias, Aliases } from "./aliases";
import { AddRoute, Routes } from "./routes";

type Row = Answer<"/admin/catalog", "get">["data"][number];
type ListStatus = Answer<"/admin/cache-status", "get">;
type Prices = Record<string, unknown>;

const TABS: [string, string][] = [
  ["", "Catalogue"],
  ["routes", "Routes to your servers"],
  ["aliases", "Aliases"],
];

export function Models() {
  const [action, section] = sectionOf(route.value.filters.tab);
  return (
    <>
      <Heading title="Models">{action}</Heading>
      <FilterTabs tabs={TABS} label="Models" />
      {section}
    </>
  );
}

function sectionOf(tab: string | undefined) {
  if (tab === "routes") return [<AddRoute key="add" />, <Routes key="list" />];
  if (tab === "aliases") return [<AddAlias key="add" />, <Aliases key="list" />];
  return [<Refresh key="refresh" label="Refresh the list now" />, <Catalogue key="list" />];
}

function Refresh({ label }: { label: string }) {
  const [busy, setBusy] = useState(false);
  const refresh = async () => {
    setBusy(true);
    try {
      const { models, took_ms: took } = await change("post", "/admin/refresh-models");
      notify(`${counted(models)} models read in ${lasting(took)}.`);
    } catch (error) {
      notify(error instanceof Error ? error.message : "The list could not be read.");
    }
    setBusy(false);
  };
  return (
    <button type="button" disabled={busy} onClick={() => void refresh()}>
      {busy ? "Reading…" : label}
    </button>
  );
}

/** The catalogue below makes a server read its list, so that its state is read again with it. */
function ListInMemory({ catalogue }: { catalogue: Loaded<unknown> }) {
  const loaded = useData("/admin/cache-status", {}, 30);
  const has = (loaded.data?.live.instance.age_seconds ?? null) !== null;
  useEffect(() => {
    if (catalogue.data && !has) loaded.reload();
  }, [catalogue.data, has]);
  return (
    <Panel title="The list in memory">
      <Shown loaded={loaded}>{(status) => (has ? <Age status={status} /> : <NotRead status={status} />)}</Shown>
    </Panel>
  );
}

function NotRead({ status: { live } }: { status: ListStatus }) {
  const { shared } = live;
  return (
    <div class="nothing-here">
      <p>
        {live.instance.last_error
          ? `This server could not read the list: ${live.instance.last_error}`
          : "This server has not read the list since it started. It reads it for the first call that needs it."}
      </p>
      {shared && (
        <p class="soft">
          The copy that all servers share is {lasting(shared.age_seconds * 1000)} old and has {counted(shared.models)}{" "}
          models.
        </p>
      )}
      <Refresh label="Load now" />
    </div>
  );
}

const Age = ({ status: { live, ttl_seconds: ttl, oldest_seconds: oldest } }: { status: ListStatus }) => (
  <>
    <Figures
      figures={[
        {
          name: "State",
          value: <Status of={live.instance.health} />,
          note: live.shared ? `shared copy: ${live.shared.health}` : "no shared copy yet",
        },
        {
          name: "Age",
          value: lasting((live.instance.age_seconds ?? 0) * 1000),
          note: `read again after ${lasting(ttl * 1000)}, used for at most ${lasting(oldest * 1000)}`,
        },
        { name: "Models", value: <Count of={live.instance.models} /> },
        {
          name: "Look-ups answered by it",
          value: live.instance.hit_rate === null ? "–" : percent(live.instance.hit_rate, 1),
          note: `refreshes: ${counted(live.instance.refreshes)}, failed: ${counted(live.instance.failures)}`,
        },
      ]}
    />
    {live.instance.last_error && <p class="status bad">Last error: {live.instance.last_error}</p>}
  </>
);

/** Nothing is charged for a price of zero, and a price that varies has no figure. */
const Price = ({ of, name }: { of: Prices; name: string }) => {
  const price = of[name];
  const shown = perMillion(typeof price === "string" ? price : undefined);
  return shown === null ? <span class="soft">varies</span> : <data value={String(price ?? 0)}>{shown}</data>;
};

function PlanFilter() {
  const { data } = useData("/admin/plans", { query: { limit: 100, sort: "name:asc" } });
  const plans = data?.data.map(({ id, name }): [string, string] => [id, name]) ?? [];
  return <Choice name="for_plan" label="Prices for" all="The default markup" options={plans} />;
}

function Catalogue() {
  const { q, for_plan, for_org, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/catalog", { query: { q, for_plan, for_org, sort, cursor, limit: 50 } });
  return (
    <>
      <ListInMemory catalogue={loaded} />
      <div class="filters">
        <Search label="Find by id or name" />
        <PlanFilter />
      </div>
      <Panel title="Catalogue" aside={<span class="soft small">Credits for a million tokens, as charged</span>}>
        <List
          loaded={loaded}
          caption="Models"
          nothing={<p>No model is known yet. Refresh the list.</p>}
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Model", of: (one) => one.id, sort: "id" },
            { name: "Context", of: (one) => <Count of={one.context_length} />, number: true, sort: "context_length" },
            { name: "In", of: (one) => <Price of={one.charged_pricing} name="prompt" />, number: true, sort: "prompt" },
            {
              name: "Out",
              of: (one) => <Price of={one.charged_pricing} name="completion" />,
              number: true,
              sort: "completion",
            },
            { name: "Served by", of: (one) => <Servers routes={one.routes} />, wide: true },
          ]}
        />
      </Panel>
      {open && <OneModel key={open} id={open} />}
    </>
  );
}

const isDown = ({ health, breaker }: Row["routes"][number]) => health === "down" || breaker === "open";

/** Where requests go, in order, and what of it is down. The models of an alias may be served by the same upstream. */
function Servers({ routes }: { routes: Row["routes"] }) {
  const names = routes.map((one) => `${one.upstream_name ?? one.upstream_id}${isDown(one) ? " (down)" : ""}`);
  return <span class={`cut status ${routes.some(isDown) ? "bad" : "good"}`}>{[...new Set(names)].join(", ")}</span>;
}

function OneModel({ id }: { id: string }) {
  const { for_plan, for_org } = route.value.filters;
  const loaded = useData("/admin/catalog/{model_id}", { path: { model_id: id }, query: { for_plan, for_org } });
  return (
    <EntrySide loaded={loaded} kind="Model" title={(row) => row.id}>
      {(row) => <WholeModel row={row} />}
    </EntrySide>
  );
}

function WholeModel({ row }: { row: Row }) {
  return (
    <>
      <Facts
        facts={[
          ["Name", row.name],
          ["Owner", row.owned_by],
          ["Context", <Count key="context" of={row.context_length} />],
          ["Takes", row.input_modalities.join(", ") || "–"],
          ["Makes", row.output_modalities.join(", ") || "–"],
          ...(row.alias_of.length ? [aliasOf(row)] : []),
          ["Added", <When key="created" at={row.created_at} />],
        ]}
      />
      <h3>Prices</h3>
      <PriceTable row={row} />
      {row.routes.length > 0 && (
        <>
          <h3>Served by</h3>
          <RouteTable routes={row.routes} />
        </>
      )}
    </>
  );
}

const aliasOf = ({ id, alias_of }: Row): [string, preact.ComponentChildren] => [
  "Alias of",
  <a key="alias" class="text" href={link("models", { tab: "aliases", open: id })}>
    {alias_of.join(", ")}
  </a>,
];

/** Prices that are not of a token, but of one piece. */
const OF_ONE = new Set(["request", "image", "web_search"]);

interface PriceRow {
  name: string;
  upstream: string;
  charged: string;
}

/** The prices that are not zero, with those for long prompts below the usual ones. */
function priceRows(row: Row): PriceRow[] {
  const overrides = (of: Prices) => (Array.isArray(of.overrides) ? (of.overrides as Prices[]) : []);
  const long = overrides(row.pricing).flatMap((prices, at) =>
    rowsOf(prices, overrides(row.charged_pricing)[at] ?? {}, `, from ${prices.min_prompt_tokens} tokens of prompt`),
  );
  return [...rowsOf(row.pricing, row.charged_pricing, ""), ...long];
}

function rowsOf(upstream: Prices, charged: Prices, condition: string): PriceRow[] {
  return Object.entries(upstream)
    .filter((entry): entry is [string, string] => typeof entry[1] === "string" && Number(entry[1]) !== 0)
    .map(([name, price]) => ({
      name: `${name.replaceAll("_", " ")}${OF_ONE.has(name) ? ", each" : ""}${condition}`,
      upstream: written(name, price),
      charged: written(name, String(charged[name] ?? price)),
    }));
}

const written = (name: string, price: string): string => (OF_ONE.has(name) ? price : (perMillion(price) ?? "varies"));

const PriceTable = ({ row }: { row: Row }) => (
  <Table
    caption="Prices"
    rows={priceRows(row)}
    keyOf={({ name }) => name}
    columns={[
      { name: "For a million tokens", of: (one) => one.name },
      { name: "Cost", of: (one) => one.upstream, number: true },
      { name: "Charged", of: (one) => one.charged, number: true },
    ]}
  />
);

const RouteTable = ({ routes }: { routes: Row["routes"] }) => (
  <Table
    caption="Served by"
    rows={routes}
    keyOf={({ upstream_id, upstream_model }) => `${upstream_id} ${upstream_model}`}
    link={({ upstream_id }) => link("upstreams", { open: upstream_id })}
    columns={[
      { name: "Upstream", of: (one) => one.upstream_name ?? one.upstream_id },
      { name: "Health", of: (one) => (one.health ? <Status of={one.health} /> : "–") },
      { name: "Breaker", of: (one) => (one.breaker ? <Status of={one.breaker} /> : "–") },
      { name: "Priority", of: (one) => <Count of={one.priority} />, number: true },
      { name: "Weight", of: (one) => <Count of={one.weight} />, number: true },
    ]}
  />
);
