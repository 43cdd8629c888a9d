/** One day beside OpenRouter's bill: by model, and why they differ, down to requests. */
import { useState } from "preact/hooks";
import { asProblem, type Problem } from "../parts/api";
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Figures } from "../parts/figures";
import { Heading } from "../parts/frame";
import { Count, Credits, counted, requestCount, Status } from "../parts/numbers";
import { ProblemBox } from "../parts/problems";
import { link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { Table } from "../parts/table";
import { When } from "../parts/times";
import { RequestSide } from "./request";

type Whole = Answer<"/admin/reconciliation/{day}", "get">;
type Model = Whole["models"][number];
type Cause = Model["causes"][number];

const AT_ONCE = 5;

const CAUSES: Record<string, [name: string, advice?: string]> = {
  open: ["Still open", "The next comparison has them."],
  estimated: ["Estimated"],
  at_the_hold: ["Charged at the hold", "Look at each, and refund what was too much."],
  no_record: ["Missing generation", "OpenRouter's page of the generation tells. Adjust the balance if it is worth it."],
  no_trace: ["No trace"],
  day_before: ["Began the day before", "They are in the bill of this day, and in our books of the other."],
  next_day: ["Ended the next day", "They are in the bill of the next day."],
  other_model: ["Another model served", "It moves between models, and changes no total."],
  account_key: [
    "Own key of the account",
    "Compare with the bill of the vendor whose key your OpenRouter account holds.",
  ],
  corrected: ["Corrected bill or price", "Ask OpenRouter, with the figures of both sides."],
  unknown_requests: [
    "Not our requests",
    "Is the key used elsewhere? Did it leak? Was a backup restored? Replace the key if you cannot tell.",
  ],
  not_stated: ["Not on the bill", "Was the key changed on that day? Then set RECONCILIATION_SCOPE=account."],
};

const VERDICTS: Record<NonNullable<Whole["verdict"]>, string> = {
  agrees: "The difference is within the tolerance.",
  explained: "The difference is beyond the tolerance. The requests below may account for all of it.",
  differs: "The difference is beyond the tolerance, and larger than the requests below may account for.",
};

export const dayName = (day: string): string =>
  new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" }).format(
    new Date(day),
  );

/** How a day stands against its tolerance. A day that failed may have an outcome of an earlier time. */
export const State = ({ of }: { of: Pick<Whole, "verdict" | "failure"> }) => (
  <span class="group">
    {of.verdict && <Status of={of.verdict} />}
    {of.failure ? <Status of="failed" /> : !of.verdict && <span class="status">waiting</span>}
  </span>
);

export function OneDay({ day }: { day: string }) {
  const loaded = useData("/admin/reconciliation/{day}", { path: { day } });
  const { open } = route.value.filters;
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const run = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await change("post", "/admin/reconciliation/{day}/run", { path: { day } });
      notify(`${dayName(day)} is reconciled.`);
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  return (
    <>
      <Heading title={`Reconciliation of ${dayName(day)}`}>
        <a class="button" href={link("reconciliation")}>
          All days
        </a>
        <button type="button" disabled={busy} onClick={() => void run()}>
          {busy ? "Reconciling…" : "Reconcile now"}
        </button>
      </Heading>
      <div aria-live="polite">{problem && <ProblemBox problem={problem} title="The day was not reconciled" />}</div>
      <Shown loaded={loaded}>
        {(found) => (
          <div class="entry">
            <Outcome of={found} failed={!problem} />
            <ByModel of={found} />
            <Causes of={found} />
          </div>
        )}
      </Shown>
      {open && <RequestSide key={open} id={open} />}
    </>
  );
}

function Outcome({ of, failed }: { of: Whole; failed: boolean }) {
  return (
    <>
      {failed && of.failure && (
        <div class="problem" role="status">
          <strong>The last comparison failed</strong>
          <p>{of.failure}</p>
          <p class="soft">
            <When at={of.failed_at} seconds />
          </p>
        </div>
      )}
      <Panel>
        <Figures
          figures={[
            { name: "State", value: <State of={of} />, note: of.verdict && VERDICTS[of.verdict] },
            {
              name: "Our books",
              value: <Credits of={of.our_cost_credits} />,
              note: of.our_requests !== null && requestCount(of.our_requests),
            },
            {
              name: "OpenRouter's bill",
              value: <Credits of={of.their_cost_credits} />,
              note: of.their_requests !== null && requestCount(of.their_requests),
            },
            {
              name: "Difference",
              value: <Credits of={of.difference_credits} />,
              note:
                of.difference_ppm !== null &&
                `${counted(of.difference_ppm)} ppm; ${counted(of.tolerance_ppm ?? 0)} are allowed`,
            },
            { name: "Compared", value: <When at={of.reconciled_at} /> },
          ]}
        />
      </Panel>
    </>
  );
}

function ByModel({ of }: { of: Whole }) {
  if (!of.models.length) {
    return (
      <Panel title="By model">
        <p class="soft">
          {of.verdict
            ? "Neither side has a request of this day."
            : "The day was not compared yet, so nothing is known."}
        </p>
      </Panel>
    );
  }
  return (
    <Panel title="By model" aside={<span class="soft small">The largest difference first</span>}>
      <Table
        caption="By model"
        rows={of.models}
        keyOf={({ model }) => model}
        link={({ model }) => withFilters({ model, open: "" })}
        open={({ model }) => model === route.value.filters.model}
        columns={[
          { name: "Model", of: ({ model }) => <span class="cut">{model}</span> },
          { name: "State", of: ({ verdict }) => <Status of={verdict} /> },
          { name: "Difference", of: (one) => <Credits of={one.difference_credits} />, number: true },
          { name: "Our books", of: (one) => <Credits of={one.our_cost_credits} />, number: true },
          { name: "Bill", of: (one) => <Credits of={one.their_cost_credits} />, number: true },
          { name: "Our requests", of: (one) => <Count of={one.our_requests} />, number: true, wide: true },
          { name: "Billed", of: (one) => <Count of={one.their_requests} />, number: true, wide: true },
          { name: "Our tokens", of: (one) => <Count of={one.our_tokens} />, number: true, wide: true },
          { name: "Billed tokens", of: (one) => <Count of={one.their_tokens} />, number: true, wide: true },
        ]}
      />
    </Panel>
  );
}

/** Of the model that the address names, or of those with the largest differences. */
function Causes({ of }: { of: Whole }) {
  const { model: chosen } = route.value.filters;
  const differing = of.models.filter(({ causes }) => causes.length);
  const shown = chosen ? of.models.filter(({ model }) => model === chosen) : differing.slice(0, AT_ONCE);
  return (
    <>
      {shown.map((one) => (
        <CausesOfModel key={one.model} of={one} />
      ))}
      {chosen ? (
        <p>
          <a class="text" href={withFilters({ model: "", open: "" })}>
            All models that differ
          </a>
        </p>
      ) : (
        differing.length > AT_ONCE && (
          <p class="soft">
            The {AT_ONCE} largest differences of {differing.length}. Choose a model above to see why it differs.
          </p>
        )
      )}
    </>
  );
}

const CausesOfModel = ({ of: { model, causes } }: { of: Model }) => (
  <Panel title={model} aside={<span class="soft small">Why it differs</span>}>
    {causes.length ? (
      <ul class="causes">
        {causes.map((cause) => (
          <li key={cause.cause}>
            <OneCause of={cause} />
          </li>
        ))}
      </ul>
    ) : (
      <p class="soft">It does not: its difference is within the tolerance.</p>
    )}
  </Panel>
);

function OneCause({ of }: { of: Cause }) {
  const [name, advice] = CAUSES[of.cause] ?? [of.cause];
  return (
    <>
      <p class="cause">
        <b>{name}</b>
        {of.requests > 0 && <span class="badge">{requestCount(of.requests)}</span>}
        <span class="soft">
          <Bounds of={of} />
        </span>
      </p>
      <p class="soft">
        {of.meaning} {advice}
      </p>
      {of.examples.length > 0 && <Examples of={of} />}
    </>
  );
}

const Bounds = ({ of }: { of: Cause }) =>
  of.least_nanos === of.most_nanos ? (
    <>
      adds <Credits of={of.most_credits} />
    </>
  ) : (
    <>
      may add <Credits of={of.least_credits} /> to <Credits of={of.most_credits} />
    </>
  );

const Examples = ({ of }: { of: Cause }) => (
  <>
    <Table
      caption={`Requests: ${CAUSES[of.cause]?.[0] ?? of.cause}`}
      rows={of.examples}
      keyOf={({ id }) => id}
      link={({ id }) => withFilters({ open: id })}
      open={({ id }) => id === route.value.filters.open}
      columns={[
        { name: "Request", of: ({ id }) => <code>{id}</code> },
        { name: "Id of the answer", of: (one) => <code class="cut">{one.generation_id ?? "–"}</code>, wide: true },
        { name: "Cost in our books", of: (one) => <Credits of={one.cost_credits} />, number: true },
        { name: "Held", of: (one) => <Credits of={one.hold_credits} />, number: true },
      ]}
    />
    {of.requests > of.examples.length && (
      <p class="soft small">
        The dearest {of.examples.length} of {counted(of.requests)}.
      </p>
    )}
  </>
);
