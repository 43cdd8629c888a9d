/** The catalogue with its prices, the state of the cached list, and the routes to your own servers. */
import { useState } from "preact/hooks";
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Facts, Figures } from "../parts/figures";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { perMillion } from "../parts/money";
import { Count, counted, lasting, percent, Status } from "../parts/numbers";
import { link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { Side } from "../parts/side";
import { List, Table } from "../parts/table";
import { FilterTabs } from "../parts/tabs";
import { When } from "../parts/times";
import { AddRoute, Routes } from "./routes";

type Row = Answer<"/admin/catalog", "get">["data"][number];
type Prices = Record<string, unknown>;

const TABS: [string, string][] = [
  ["", "Catalogue"],
  ["routes", "Routes to your servers"],
];

export function Models() {
  const routes = route.value.filters.tab === "routes";
  return (
    <>
      <Heading title="Models">{routes ? <AddRoute /> : <Refresh />}</Heading>
      <FilterTabs tabs={TABS} label="Models" />
      {routes ? (
        <Routes />
      ) : (
        <>
          <CacheStatus />
          <Catalogue />
        </>
      )}
    </>
  );
}

function Refresh() {
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
      {busy ? "Reading…" : "Refresh the list now"}
    </button>
  );
}

function CacheStatus() {
  const loaded = useData("/admin/cache-status", {}, 30);
  return (
    <Panel title="Cached list of models">
      <Shown loaded={loaded}>
        {({ live, ttl_seconds: ttl, oldest_seconds: oldest }) => (
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
                  value: live.instance.age_seconds === null ? "–" : lasting(live.instance.age_seconds * 1000),
                  note: `read again after ${lasting(ttl * 1000)}, used for at most ${lasting(oldest * 1000)}`,
                },
                { name: "Models", value: <Count of={live.instance.models} /> },
                {
                  name: "Answered from the cache",
                  value: live.instance.hit_rate === null ? "–" : percent(live.instance.hit_rate, 1),
                  note: `${counted(live.instance.refreshes)} refreshes, ${counted(live.instance.failures)} failed`,
                },
              ]}
            />
            {live.instance.last_error && <p class="status bad">Last error: {live.instance.last_error}</p>}
          </>
        )}
      </Shown>
    </Panel>
  );
}

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
  const row = loaded.data?.data.find(({ id }) => id === open);
  return (
    <>
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
      {row && <OneModel row={row} />}
    </>
  );
}

const isDown = ({ health, breaker }: Row["routes"][number]) => health === "down" || breaker === "open";

/** Where requests go, in order, and what of it is down. */
function Servers({ routes }: { routes: Row["routes"] }) {
  const names = routes.map((one) => `${one.upstream_name ?? one.upstream_id}${isDown(one) ? " (down)" : ""}`);
  return <span class={`cut status ${routes.some(isDown) ? "bad" : "good"}`}>{names.join(", ")}</span>;
}

function OneModel({ row }: { row: Row }) {
  return (
    <Side title={row.id}>
      <Facts
        facts={[
          ["Name", row.name],
          ["Owner", row.owned_by],
          ["Context", <Count key="context" of={row.context_length} />],
          ["Takes", row.input_modalities.join(", ") || "–"],
          ["Makes", row.output_modalities.join(", ") || "–"],
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
    </Side>
  );
}

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
