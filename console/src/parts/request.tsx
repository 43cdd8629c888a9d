/** Parts of one request, as its owner and operators see them: how it ended, what was sent upstream, what it moved. */
import type { ComponentChildren } from "preact";
import { Facts } from "./figures";
import { Credits, Duration, Status } from "./numbers";
import type { Answer } from "./session";
import { Table } from "./table";
import { When } from "./times";

type Life = Answer<"/user/usage/{request_id}", "get">;
type Attempt = Life["attempts"][number] & { status?: number | null; why?: string | null };
export type Pair = [name: string, value: ComponentChildren];

const BASES: Record<NonNullable<Life["settlement"]["basis"]>, string> = {
  stated_cost: "The upstream stated its cost.",
  listed_price: "The upstream's tokens at the listed price.",
  cache: "The answer was in the completion cache.",
  free: "A test key: nothing is charged.",
  byok_fee: "The fee for a call with the org's own upstream key.",
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

/** How the charge was found. */
export const Basis = ({ of }: { of: Life["settlement"]["basis"] }) => (of ? <p>{BASES[of]}</p> : null);

export const Section = ({ title, children }: { title: string; children: ComponentChildren }) => (
  <section>
    <h3>{title}</h3>
    {children}
  </section>
);

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

export function Attempts({ of }: { of: Attempt[] }) {
  if (!of.length) return <p class="soft">Nothing was sent to an upstream.</p>;
  return (
    <ol class="steps">
      {of.map((one) => (
        <li key={`${one.started_ms} ${one.upstream}`}>
          <b>{one.upstream}</b> <Status of={one.outcome} />
          {one.status && <code class="soft"> HTTP {one.status}</code>}
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

/** Numbers with the names that the upstream gave them, those inside of others by their path. */
export function Numbers({ title, of }: { title: string; of: Record<string, unknown> }) {
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

export function Ledger({ of }: { of: Life["transfers"] }) {
  if (!of.length) return <p class="soft">It moved no credits.</p>;
  return (
    <Table
      caption="Transfers of this request"
      rows={of}
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
