/** Dialogs that move credits. Each shows the balance before and after, and has one idempotency key. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Money, notify } from "../parts/basics";
import { Shown, useData } from "../parts/data";
import { Dialog, Form, FormDialog, Input, Lines, Select, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { exactCredits, nanosOf } from "../parts/money";
import { type Answer, change } from "../parts/session";

type Org = Answer<"/admin/orgs/{org_id}", "get">;
type Posted = Answer<"/admin/credits/grant", "post">;
type Request = Answer<"/admin/usage/{request_id}", "get">;

const done = (what: string, { amount_nanos, balance_after_nanos }: Posted): void =>
  notify(
    `${what}: ${exactCredits(BigInt(amount_nanos))} credits. The balance is ${exactCredits(BigInt(balance_after_nanos))}.`,
  );

/** Digits as the API takes them, without the separators that people type. */
const decimal = (text: string): string => text.replaceAll(/[,\s]/g, "").replace("−", "-");

function AmountInput({
  onAmount,
  hint,
  ...input
}: {
  onAmount: (nanos: bigint | null) => void;
  hint?: string;
  defaultValue?: string;
}) {
  return (
    <Input
      label="Credits"
      name="credits"
      inputMode="decimal"
      required
      hint={hint}
      {...input}
      onInput={(event) => onAmount(nanosOf(event.currentTarget.value))}
    />
  );
}

const Reason = () => (
  <Lines label="Reason" name="reason" required maxLength={1000} hint="The org sees it with the transfer." />
);

function BeforeAfter({ before, change: by }: { before: bigint; change: bigint | null }) {
  return (
    <div class="before-after" aria-live="polite">
      <Side name="Balance now" nanos={before} />
      <span aria-hidden="true">→</span>
      <Side name="Balance after" nanos={by === null ? null : before + by} />
    </div>
  );
}

const Side = ({ name, nanos }: { name: string; nanos: bigint | null }) => (
  <div>
    <span class="soft small">{name}</span>
    <b>{nanos === null ? "–" : <Money nanos={nanos} />}</b>
  </div>
);

export function GrantDialog({ org, close }: { org: Org; close: () => void }) {
  const [amount, setAmount] = useState<bigint | null>(null);
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = bodyOf(org, values);
    done("Granted", await change("post", "/admin/credits/grant", { body, idempotencyKey }));
  };
  return (
    <FormDialog
      title={`Grant credits to ${org.name}`}
      action="Grant"
      ready={amount !== null && amount > 0n}
      onClose={close}
      submit={submit}
    >
      <AmountInput onAmount={setAmount} />
      <Select
        label="Source"
        name="source"
        options={[
          ["funding", "Funding: the org paid for them"],
          ["promotion", "Promotion: they are free"],
        ]}
      />
      <Reason />
      <BeforeAfter before={BigInt(org.credits_nanos)} change={amount} />
    </FormDialog>
  );
}

export function AdjustDialog({ org, close }: { org: Org; close: () => void }) {
  const [amount, setAmount] = useState<bigint | null>(null);
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = bodyOf(org, values);
    done("Adjusted", await change("post", "/admin/credits/adjust", { body, idempotencyKey }));
  };
  return (
    <FormDialog
      title={`Adjust the balance of ${org.name}`}
      action="Adjust"
      ready={amount !== null && amount !== 0n}
      onClose={close}
      submit={submit}
    >
      <AmountInput
        onAmount={setAmount}
        hint={`Below zero, credits are taken, at most the available ${exactCredits(BigInt(org.available_nanos))}.`}
      />
      <Select
        label="Source"
        name="source"
        options={[
          ["funding", "Funding: corrects what the org paid"],
          ["promotion", "Promotion: corrects free credits"],
          ["writeoff", "Write-off: our own loss or gain"],
        ]}
      />
      <Reason />
      <BeforeAfter before={BigInt(org.credits_nanos)} change={amount} />
    </FormDialog>
  );
}

const bodyOf = ({ id }: Org, values: Values) => ({
  org_id: id,
  credits: decimal(values.text("credits")),
  source: values.text("source"),
  reason: values.text("reason"),
});

/** Refunds a charge. Without the id of its request, asks for it first. */
export function RefundDialog({ requestId, close }: { requestId?: string | undefined; close: () => void }) {
  const [id, setId] = useState(requestId);
  return (
    <Dialog title="Refund a charge" onClose={close}>
      {id ? (
        <FoundCharge id={id} close={close} />
      ) : (
        <Form action="Find the charge" onCancel={close} submit={async (values) => setId(values.text("request_id"))}>
          <Input
            label="Request id"
            name="request_id"
            required
            placeholder="req_…"
            spellcheck={false}
            hint="It is in the answer's header x-request-id, in the usage, and with each charge of the ledger."
          />
        </Form>
      )}
    </Dialog>
  );
}

function FoundCharge({ id, close }: { id: string; close: () => void }) {
  const loaded = useData("/admin/usage/{request_id}", { path: { request_id: id } });
  return <Shown loaded={loaded}>{(request) => <Payer request={request} close={close} />}</Shown>;
}

function Payer({ request, close }: { request: Request; close: () => void }) {
  const loaded = useData("/admin/orgs/{org_id}", { path: { org_id: request.org_id } });
  return <Shown loaded={loaded}>{(org) => <RefundForm request={request} org={org} close={close} />}</Shown>;
}

function RefundForm({ request, org, close }: { request: Request; org: Org; close: () => void }) {
  const left = BigInt(request.settlement.refundable_nanos);
  const [amount, setAmount] = useState<bigint | null>(left);
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = { request_id: request.id, credits: decimal(values.text("credits")), reason: values.text("reason") };
    done("Refunded", await change("post", "/admin/credits/refund", { body, idempotencyKey }));
    close();
  };
  if (left <= 0n) return <NothingLeft request={request} close={close} />;
  return (
    <Form action="Refund" ready={amount !== null && amount > 0n && amount <= left} onCancel={close} submit={submit}>
      <Facts facts={factsOf(request, left)} />
      <AmountInput onAmount={setAmount} defaultValue={exactCredits(left)} hint="At most what is left of the charge." />
      <Reason />
      <BeforeAfter before={BigInt(org.credits_nanos)} change={amount} />
    </Form>
  );
}

const factsOf = (request: Request, left: bigint): [string, ComponentChildren][] => [
  ["Request", <code key="id">{request.id}</code>],
  ["Org", request.org_name ?? request.org_id],
  ["Model", request.model],
  ["Charge", <Money key="charge" nanos={BigInt(request.charge_nanos ?? 0)} />],
  ["Left of it", <Money key="left" nanos={left} />],
];

const NothingLeft = ({ request, close }: { request: Request; close: () => void }) => (
  <>
    <Facts facts={factsOf(request, 0n)} />
    <p>Nothing is left to refund of this request: it was not charged, or all of it is refunded.</p>
    <div class="actions">
      <button type="button" onClick={close}>
        Close
      </button>
    </div>
  </>
);
