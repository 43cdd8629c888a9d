/** The completion cache: what it has, how often it answers, and what may be done with it. */
import { useState } from "preact/hooks";
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { FormDialog, Input, type Values } from "../parts/dialogs";
import { Facts, Figures } from "../parts/figures";
import { Choice } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Count, Credits, counted, lasting, percent, Status, sized } from "../parts/numbers";
import { link, route } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { Nothing, Table } from "../parts/table";
import { ModelInput, OrgFilter, OrgInput } from "./pickers";

type Stats = Answer<"/admin/cache", "get">;
type Asked = "clear" | "warm" | null;

const DAYS: [string, string][] = [
  ["1", "Today (UTC)"],
  ["7", "7 days"],
];

export function Cache() {
  const { org_id, days } = route.value.filters;
  const loaded = useData("/admin/cache", { query: { org_id, days } });
  const [asked, ask] = useState<Asked>(null);
  return (
    <>
      <Heading title="Completion cache">
        {loaded.data?.redis !== "not_configured" && (
          <button type="button" disabled={!loaded.data} onClick={() => ask("warm")}>
            Copy to Redis
          </button>
        )}
        <button type="button" class="danger" onClick={() => ask("clear")}>
          Clear
        </button>
      </Heading>
      <div class="filters">
        <Choice name="days" label="Period" all="30 days" options={DAYS} />
        <OrgFilter />
      </div>
      <Shown loaded={loaded}>
        {(stats) => (
          <>
            {stats.settings.max_org_bytes === 0 && <IsOff />}
            <Panel>
              <Sums stats={stats} />
            </Panel>
            <Panel title="By model">
              <Models stats={stats} />
            </Panel>
            <Panel title="Settings in force">
              <Facts facts={settingsOf(stats)} />
              <p class="soft small">
                Requests ask for the cache themselves. On the page of an org, and with each key, it can be switched on
                for those that say nothing: embeddings, and those at temperature 0.
              </p>
            </Panel>
          </>
        )}
      </Shown>
      {asked === "clear" && <ClearDialog orgId={org_id} close={() => ask(null)} />}
      {asked === "warm" && <WarmDialog orgId={org_id} close={() => ask(null)} />}
    </>
  );
}

const IsOff = () => (
  <div class="problem" role="status">
    <strong>The completion cache is off</strong>
    <p>
      <code>CACHE_MAX_ORG_BYTES</code> is 0, so nothing is stored.
    </p>
  </div>
);

const rateOf = (rate: number | null): string => (rate === null ? "–" : percent(rate, 1));

const Sums = ({ stats }: { stats: Stats }) => (
  <Figures
    figures={[
      {
        name: "Hit rate",
        value: rateOf(stats.hit_rate),
        note: `${counted(stats.hits)} of ${counted(stats.hits + stats.misses)} look-ups`,
        large: true,
      },
      {
        name: "Saved",
        value: <Credits of={stats.saved_credits} />,
        note: "What customers did not pay for these answers",
      },
      { name: "Answers stored now", value: <Count of={stats.entries} />, note: sized(stats.bytes) },
      {
        name: "Redis",
        value: stats.redis === "not_configured" ? "not used" : <Status of={stats.redis} />,
        note: stats.redis === "not_configured" ? "Answers are read from Postgres" : "A level in front of Postgres",
      },
    ]}
  />
);

const Models = ({ stats: { models } }: { stats: Stats }) =>
  models.length ? (
    <Table
      caption="Look-ups by model"
      rows={models}
      keyOf={({ model }) => model}
      link={({ model }) => link("usage", { model, cached: "true", hours: "720" })}
      columns={[
        { name: "Model", of: (row) => <span class="cut">{row.model}</span> },
        { name: "Hit rate", of: (row) => rateOf(row.hit_rate), number: true },
        { name: "Hits", of: (row) => <Count of={row.hits} />, number: true },
        { name: "Misses", of: (row) => <Count of={row.misses} />, number: true, wide: true },
        { name: "Saved", of: (row) => <Credits of={row.saved_credits} />, number: true },
      ]}
    />
  ) : (
    <Nothing>
      <p>No request asked for the cache in this period.</p>
    </Nothing>
  );

const settingsOf = ({ settings: of }: Stats): [string, preact.ComponentChildren][] => [
  ["An answer is kept for", `${lasting(of.ttl_seconds * 1000)}, at most ${lasting(of.max_ttl_seconds * 1000)}`],
  ["Largest answer", sized(of.max_answer_bytes)],
  ["Most of an org", sized(of.max_org_bytes)],
  ["A hit costs", of.hit_share === 0 ? "nothing" : `${percent(of.hit_share, 1)} of what the answer cost`],
  ["Identical requests wait for the first", `at most ${lasting(of.wait_seconds * 1000)}`],
];

interface DialogProps {
  orgId: string | undefined;
  close: () => void;
}

function ClearDialog({ orgId = "", close }: DialogProps) {
  const submit = async (values: Values) => {
    const query = { org_id: values.text("org_id"), model: values.text("model"), key_id: values.text("key_id") };
    const { cleared } = await change("delete", "/admin/cache", { query });
    notify(`Answers cleared: ${counted(cleared)}.`);
  };
  return (
    <FormDialog title="Clear the completion cache" action="Clear" danger onClose={close} submit={submit}>
      <p class="soft">What matches all of these is cleared, at once and everywhere. Without any, everything is.</p>
      <OrgInput defaultValue={orgId} placeholder="All orgs" />
      <ModelInput label="Model in the request" name="model" placeholder="All models" />
      <Input label="Key (id)" name="key_id" placeholder="All keys" spellcheck={false} />
    </FormDialog>
  );
}

function WarmDialog({ orgId = "", close }: DialogProps) {
  const submit = async (values: Values) => {
    const body = {
      org_id: values.optional("org_id"),
      model: values.optional("model"),
      limit: values.number("limit") ?? undefined,
    };
    const { warmed } = await change("post", "/admin/cache/warm", { body });
    notify(`Answers in Redis: ${counted(warmed)}.`);
  };
  return (
    <FormDialog title="Copy stored answers to Redis" action="Copy" onClose={close} submit={submit}>
      <p class="soft">After a restart of Redis. The newest are copied; nothing goes upstream.</p>
      <OrgInput defaultValue={orgId} placeholder="All orgs" />
      <ModelInput label="Model in the request" name="model" placeholder="All models" />
      <Input label="At most" name="limit" type="number" min={1} max={1000} placeholder="100" />
    </FormDialog>
  );
}
