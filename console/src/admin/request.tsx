/** One request from its hold to its last transfer: beside the list, and as a page of its own. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Copy } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Facts } from "../parts/figures";
import { Heading } from "../parts/frame";
import { perMillion } from "../parts/money";
import { Count, Credits, counted, Duration, Status } from "../parts/numbers";
import { link, linkTo } from "../parts/routing";
import type { Answer } from "../parts/session";
import { Side } from "../parts/side";
import { Table } from "../parts/table";
import { When } from "../parts/times";
import { RefundDialog } from "./credit_dialogs";

type Life = Answer<"/admin/usage/{request_id}", "get">;
type Basis = NonNullable<Life["settlement"]["basis"]>;
type Pair = [name: string, value: ComponentChildren];

const BASES: Record<Basis, string> = {
  stated_cost: "The upstream stated its cost.",
  listed_price: "The upstream's tokens at the listed price.",
  cache: "The answer was in the completion cache.",
  free: "A test key: nothing is charged.",
  generation_record: "OpenRouter's record of it, which was read later.",
  no_usage: "An estimate: the upstream stated no tokens.",
  abandoned_prefill: "An estimate: the client left while the upstream read the prompt.",
  no_trace: "An estimate: nothing says what it cost.",
  unbelievable_usage: "The hold, because the upstream's figures cannot be correct.",
  out_of_range: "The hold, because the upstream's cost is out of range.",
  unreadable_record: "The hold, because OpenRouter's record could not be read.",
  released: "Not charged.",
  no_record: "Not charged: OpenRouter has no record of it.",
  unknown: "It is not stored how the charge was found.",
};

export function RequestSide({ id }: { id: string }) {
  return (
    <Side title="Request">
      <p>
        <a class="text" href={linkTo("usage", id)}>
          Open as a page
        </a>
      </p>
      <OneRequest id={id} />
    </Side>
  );
}

export function RequestPage({ id }: { id: string }) {
  return (
    <>
      <Heading title="Request">
        <a class="button" href={link("usage")}>
          All requests
        </a>
      </Heading>
      <Panel>
        <OneRequest id={id} />
      </Panel>
    </>
  );
}

function OneRequest({ id }: { id: string }) {
  const loaded = useData("/admin/usage/{request_id}", { path: { request_id: id } });
  return <Shown loaded={loaded}>{(life) => <WholeLife life={life} />}</Shown>;
}

function WholeLife({ life }: { life: Life }) {
  return (
    <div class="life">
      <Section title="Overview">
        <Facts facts={overviewOf(life)} />
      </Section>
      <Section title="Hold">
        <Facts facts={holdOf(life)} />
      </Section>
      <Section title="Attempts">
        <Attempts life={life} />
      </Section>
      <Section title="Settlement">
        <SettlementFacts life={life} />
        <Refund of={life} />
      </Section>
      <Section title="Ledger">
        <Ledger life={life} />
      </Section>
      {life.idempotency && (
        <Section title="Idempotency">
          <Facts facts={idempotencyOf(life.idempotency)} />
        </Section>
      )}
      {life.events.length > 0 && (
        <Section title="Audit events">
          <Events life={life} />
        </Section>
      )}
      <Section title="Prompt and answer">
        <Content id={life.id} />
      </Section>
    </div>
  );
}

const Section = ({ title, children }: { title: string; children: ComponentChildren }) => (
  <section>
    <h3>{title}</h3>
    {children}
  </section>
);

const To = ({ to, name }: { to: string; name: string }) => (
  <a class="text" href={to}>
    {name}
  </a>
);

function overviewOf(life: Life): Pair[] {
  return [
    [
      "Id",
      <span key="id" class="group">
        <code>{life.id}</code>
        <Copy label="Request id" text={() => life.id} />
      </span>,
    ],
    ["State", <Outcome key="state" row={life} />],
    ["Time", <When key="time" at={life.created_at} seconds />],
    ["Org", <To key="org" to={linkTo("orgs", life.org_id)} name={life.org_name || life.org_id} />],
    ["User", <To key="user" to={linkTo("users", life.user_id)} name={life.user_email || life.user_id} />],
    ["Key", <To key="key" to={link("keys", { open: life.key_id })} name={life.key_name || life.key_id} />],
    ["Model", life.model],
    ["Served by", [life.served_model, life.upstream].filter(Boolean).join(" at ") || "–"],
    ["Endpoint", life.streamed ? `${life.endpoint}, streamed` : life.endpoint],
    ["First token", <Duration key="first" ms={life.first_token_ms} />],
    ["Duration", <Duration key="duration" ms={life.duration_ms} />],
    ["Id of the answer", life.generation_id ? <code key="generation">{life.generation_id}</code> : "–"],
  ];
}

export function Outcome({ row }: { row: Pick<Life, "state" | "status" | "error_code" | "estimated" | "quarantined"> }) {
  const failed = row.error_code ?? (row.status !== null && row.status >= 400 ? String(row.status) : null);
  return (
    <>
      <Status of={row.state} />
      {failed && <code class="soft nowrap"> {failed}</code>}
      {row.quarantined && <span class="badge">quarantined</span>}
      {row.estimated && <span class="badge">estimated</span>}
    </>
  );
}

function holdOf({ hold, settlement }: Life): Pair[] {
  return [
    ["Set aside", <Credits key="amount" of={hold.amount_credits} />],
    ["Fixed cost", <Plain key="fixed" of={hold.fixed_cost} />],
    [
      "Output",
      <>
        at most {counted(hold.output_bound)} tokens
        {hold.output_token_cost && <>, {perMillion(hold.output_token_cost)} a million</>}
      </>,
    ],
    ["Markup", markup(settlement.markup)],
    ["Tokens reserved", <Count key="tokens" of={hold.reserved_tokens} />],
    ...(hold.is_open ? openHoldOf(hold) : []),
  ];
}

const openHoldOf = (hold: Life["hold"]): Pair[] => [
  ["Expires", <When key="expires" at={hold.expires_at} seconds />],
  ["Next look for the cost", <When key="next" at={hold.next_look_at} seconds />],
  ["Looks so far", <Count key="looks" of={hold.looks} />],
];

const markup = (share: number) => `${(share * 100).toLocaleString("en-US", { maximumFractionDigits: 4 })}%`;

/** A decimal that may have more digits than a credit has nanos. */
const Plain = ({ of }: { of: string | null }) =>
  of === null ? <span class="soft">–</span> : <data value={of}>{of}</data>;

function Attempts({ life }: { life: Life }) {
  if (!life.attempts.length) return <p class="soft">Nothing was sent to an upstream.</p>;
  return (
    <ol class="steps">
      {life.attempts.map((one) => (
        <li key={`${one.started_ms} ${one.upstream}`}>
          <b>{one.upstream}</b> <Status of={one.outcome} />
          {one.status !== null && <code class="soft"> HTTP {one.status}</code>}
          <span class="soft">
            after <Duration ms={one.started_ms} />, for <Duration ms={one.duration_ms} />
          </span>
          {one.model && <code class="soft">{one.model}</code>}
          {one.error_code && <code>{one.error_code}</code>}
          {one.why && <p>{one.why}</p>}
        </li>
      ))}
    </ol>
  );
}

function SettlementFacts({ life }: { life: Life }) {
  const { settlement } = life;
  if (!settlement.settled_at) return <p class="soft">It is not settled yet. Until then its hold is set aside.</p>;
  return (
    <>
      {settlement.basis && <p>{BASES[settlement.basis]}</p>}
      <Facts facts={[...moneyOf(life), ...unitsOf(life)]} />
      <Numbers title="Prices used, in credits" of={settlement.price} />
      <Numbers title="Usage that the upstream stated" of={settlement.usage ?? {}} />
    </>
  );
}

function Refund({ of }: { of: Life }) {
  const [asked, ask] = useState(false);
  if (BigInt(of.settlement.refundable_nanos) <= 0n) return null;
  return (
    <>
      <button type="button" onClick={() => ask(true)}>
        Refund
      </button>
      {asked && <RefundDialog requestId={of.id} close={() => ask(false)} />}
    </>
  );
}

const moneyOf = ({ settlement: of }: Life): Pair[] => [
  ["Settled", <When key="settled" at={of.settled_at} seconds />],
  ["Charge", <Credits key="charge" of={of.charge_credits} />],
  ["Cost", <Credits key="cost" of={of.cost_credits} />],
  ["Margin", <Credits key="margin" of={of.margin_credits} />],
  ["Refunded", <Credits key="refunded" of={of.refunded_credits} />],
  ["Left to refund", <Credits key="left" of={of.refundable_credits} />],
];

const unitsOf = (life: Life): Pair[] => [
  ["Tokens in", <Count key="in" of={life.prompt_tokens} />],
  ["of them cached", <Count key="cached" of={life.cached_tokens} />],
  ["Tokens out", <Count key="out" of={life.completion_tokens} />],
];

/** Numbers with the names that the upstream gave them, those inside of others by their path. */
function Numbers({ title, of }: { title: string; of: Record<string, unknown> }) {
  const found = flat(of);
  if (!found.length) return null;
  return (
    <details>
      <summary>{title}</summary>
      <Facts facts={found.map(([name, value]): Pair => [name.replaceAll("_", " "), value])} />
    </details>
  );
}

function flat(of: Record<string, unknown>, prefix = ""): [string, string][] {
  return Object.entries(of).flatMap(([name, value]): [string, string][] =>
    value !== null && typeof value === "object"
      ? flat(value as Record<string, unknown>, `${prefix}${name}: `)
      : [[prefix + name, String(value)]],
  );
}

function Ledger({ life }: { life: Life }) {
  if (!life.transfers.length) return <p class="soft">It moved no credits.</p>;
  return (
    <Table
      caption="Transfers of this request"
      rows={life.transfers}
      keyOf={({ id }) => id}
      columns={[
        { name: "Time", of: (row) => <When at={row.created_at} /> },
        { name: "Kind", of: (row) => <span title={row.reason}>{row.kind}</span> },
        { name: "Change", of: (row) => <Credits of={row.change_credits} />, number: true },
        { name: "Balance after", of: (row) => <Credits of={row.balance_after_credits} />, number: true },
      ]}
    />
  );
}

const ANSWERS: Record<NonNullable<Life["idempotency"]>["answer"], string> = {
  running: "The request is running",
  kept: "Kept for repetitions",
  not_kept: "Not kept: a repetition is refused",
  gone: "Deleted",
};

const idempotencyOf = (of: NonNullable<Life["idempotency"]>): Pair[] => [
  ["Key", <code key="key">{of.key}</code>],
  ["Answer", ANSWERS[of.answer]],
  ["Kept until", <When key="until" at={of.kept_until} seconds />],
  ["Replays", counted(of.replays)],
  ["Last replay", <When key="last" at={of.replayed_at} seconds />],
];

const Events = ({ life }: { life: Life }) => (
  <ul class="steps">
    {life.events.map((event) => (
      <li key={event.id}>
        <When at={event.occurred_at} seconds /> <code>{event.action}</code>
      </li>
    ))}
  </ul>
);

/** Read only when asked for, since each reading is recorded. */
function Content({ id }: { id: string }) {
  const [asked, ask] = useState(false);
  if (asked) return <ContentRead id={id} />;
  return (
    <>
      <p class="soft">Reading what a customer sent is recorded in the audit trail.</p>
      <button type="button" onClick={() => ask(true)}>
        Show prompt and answer
      </button>
    </>
  );
}

function ContentRead({ id }: { id: string }) {
  const loaded = useData("/admin/usage/{request_id}", { path: { request_id: id }, query: { include: "content" } });
  return (
    <Shown loaded={loaded}>
      {({ content }) =>
        content ? (
          <>
            <Said title="Prompt" text={content.prompt} />
            <Said title="Answer" text={content.answer} />
          </>
        ) : (
          <p class="soft">None was kept. LOG_CONTENT decides what is kept.</p>
        )
      }
    </Shown>
  );
}

const Said = ({ title, text }: { title: string; text: string | null }) => (
  <>
    <h4>{title}</h4>
    {text ? <div class="words code">{text}</div> : <p class="soft">Not kept.</p>}
  </>
);
