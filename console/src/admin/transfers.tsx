/** The ledger: all transfers, or those of one org. A charge can be refunded from its row. */
import { useState } from "preact/hooks";
import { Panel, useData } from "../parts/data";
import { Choice, NothingInPeriod, Period, period } from "../parts/filters";
import { Heading } from "../parts/frame";
import { Credits, Status } from "../parts/numbers";
import { linkTo, route } from "../parts/routing";
import type { Answer } from "../parts/session";
import { type Column, List } from "../parts/table";
import { When } from "../parts/times";
import { RefundDialog } from "./credit_dialogs";
import { OrgFilter } from "./pickers";

type Transfer = Answer<"/admin/credits/transactions", "get">["data"][number];

const KINDS: [string, string][] = [
  ["grant", "Grants"],
  ["charge", "Charges"],
  ["refund", "Refunds"],
  ["adjustment", "Adjustments"],
];
const ACCOUNTS: [string, string][] = [
  ["wallet", "Wallet"],
  ["funding", "Funding"],
  ["promotion", "Promotion"],
  ["revenue", "Revenue"],
  ["writeoff", "Write-off"],
];

export function Transfers() {
  const [refunds, setRefunds] = useState(false);
  return (
    <>
      <Heading title="Transfers">
        <button type="button" onClick={() => setRefunds(true)}>
          Refund by request id
        </button>
      </Heading>
      <TransferList />
      {refunds && <RefundDialog close={() => setRefunds(false)} />}
    </>
  );
}

const ORG: Column<Transfer> = {
  name: "Org",
  of: ({ org_id, org_name }) => (
    <a class="text cut" href={linkTo("orgs", org_id)}>
      {org_name}
    </a>
  ),
  wide: true,
};

export function TransferList({ orgId }: { orgId?: string }) {
  const { kind, debit, credit, sort, cursor, org_id } = route.value.filters;
  const loaded = useData("/admin/credits/transactions", {
    query: { ...period("720"), kind, debit, credit, sort, cursor, org_id: orgId ?? org_id, limit: 50 },
  });
  const [requestId, refund] = useState<string | null>(null);
  return (
    <>
      <div class="filters">
        <Period usual="720" />
        <Choice name="kind" label="Kind" options={KINDS} />
        {!orgId && (
          <>
            <Choice name="debit" label="From" options={ACCOUNTS} />
            <Choice name="credit" label="To" options={ACCOUNTS} />
            <OrgFilter />
          </>
        )}
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Transfers"
          nothing={<NothingInPeriod>No credits were moved in this period.</NothingInPeriod>}
          keyOf={({ id }) => id}
          columns={[
            { name: "Time", of: (row) => <When at={row.created_at} seconds />, sort: "created_at" },
            { name: "Kind", of: (row) => <Status of={row.kind} /> },
            ...(orgId ? [] : [ORG]),
            { name: "Change", of: (row) => <Credits of={row.change_credits} />, number: true },
            { name: "Balance after", of: (row) => <Credits of={row.balance_after_credits} />, number: true },
            { name: "For", of: (row) => <For transfer={row} short={!orgId} /> },
            {
              name: "From, to",
              of: (row) => <span class="unbroken">{`${row.debit} → ${row.credit}`}</span>,
              wide: true,
            },
            { name: "", of: (row) => <Refund transfer={row} refund={refund} /> },
          ]}
        />
      </Panel>
      {requestId && <RefundDialog requestId={requestId} close={() => refund(null)} />}
    </>
  );
}

const For = ({ transfer: { request_id, reason }, short }: { transfer: Transfer; short: boolean }) => (
  <div class="stacked">
    {request_id && (
      <a class="text" href={linkTo("usage", request_id)}>
        <code class={short ? "cut" : ""}>{request_id}</code>
      </a>
    )}
    {reason && (
      <span class="cut" title={reason}>
        {reason}
      </span>
    )}
    {!request_id && !reason && "–"}
  </div>
);

const Refund = ({ transfer, refund }: { transfer: Transfer; refund: (id: string) => void }) =>
  transfer.request_id && BigInt(transfer.refundable_nanos ?? 0) > 0n ? (
    <button type="button" class="quiet" onClick={() => refund(transfer.request_id ?? "")}>
      Refund
    </button>
  ) : null;
