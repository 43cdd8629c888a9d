/** The fields of a key, for the form that creates it and the one that changes it. */
import { Input, Lines, Select, type Values } from "./dialogs";

export interface KeyRow {
  name: string;
  allowed_models: string[] | null;
  ip_allowlist: string[] | null;
  expires_at: string | null;
  budget_credits: string | null;
  budget_reset: string | null;
  tokens_per_month: number | null;
}

const RESETS: [string, string][] = [
  ["never", "Never"],
  ["daily", "Each day (UTC)"],
  ["weekly", "Each week"],
  ["monthly", "Each month"],
];
const USES: [scopes: string, label: string][] = [
  ["chat,completions,embeddings,models,usage", "Completions, and reading balance and usage"],
  ["chat,completions,embeddings,models", "Completions only"],
  ["chat,completions,embeddings,models,usage,keys", "All of it, and managing keys"],
];

export function KeyFields({ row, creates = false }: { row?: KeyRow; creates?: boolean }) {
  return (
    <>
      <Input label="Name" name="name" required maxLength={200} defaultValue={row?.name ?? ""} />
      {creates && (
        <div class="pair">
          <Select
            label="Environment"
            name="environment"
            options={[
              ["live", "Live: paid from the balance"],
              ["test", "Test: a sandbox, for free"],
            ]}
          />
          <Select label="May be used for" name="use" options={USES} />
        </div>
      )}
      <div class="pair">
        <Input
          label="Budget in credits"
          name="budget_credits"
          inputMode="decimal"
          placeholder="No budget"
          defaultValue={row?.budget_credits ?? ""}
        />
        <Select
          label="The budget resets"
          name="budget_reset"
          options={RESETS}
          defaultValue={row?.budget_reset ?? "never"}
        />
      </div>
      <div class="pair">
        <Input
          label="Tokens a month"
          name="tokens_per_month"
          type="number"
          min={0}
          placeholder="No limit"
          defaultValue={row?.tokens_per_month?.toString() ?? ""}
        />
        <Input
          label="Expires on (UTC)"
          name="expires_at"
          type="date"
          defaultValue={row?.expires_at?.slice(0, 10) ?? ""}
        />
      </div>
      <Lines
        label="Models"
        name="allowed_models"
        placeholder="All models"
        hint="One a line; * stands for any characters, as in openai/*."
        defaultValue={row?.allowed_models?.join("\n") ?? ""}
      />
      <Lines
        label="Networks"
        name="ip_allowlist"
        placeholder="All addresses"
        hint="Addresses or networks, one a line, as in 10.0.0.0/8."
        defaultValue={row?.ip_allowlist?.join("\n") ?? ""}
      />
    </>
  );
}

/** The body for a new key, or the changes of an old one. */
export function bodyOf(values: Values, row?: KeyRow): Record<string, unknown> {
  const budget = values.optional("budget_credits");
  const body = {
    name: values.text("name"),
    budget_credits: budget,
    budget_reset: budget ? values.text("budget_reset") : null,
    tokens_per_month: values.number("tokens_per_month"),
    expires_at: expiry(values.optional("expires_at"), row),
    allowed_models: values.list("allowed_models"),
    ip_allowlist: values.list("ip_allowlist"),
  };
  if (row) return body;
  return { ...body, environment: values.text("environment"), scopes: values.list("use") };
}

/** The end of the chosen day. A day that was not changed keeps its hour. */
function expiry(day: string | null, row?: KeyRow): string | null {
  if (day === null || row?.expires_at?.startsWith(day)) return day && (row?.expires_at ?? null);
  return `${day}T23:59:59Z`;
}

export const RotationFields = () => (
  <>
    <p>A new secret is made. The old one works until the hours are over, so that programs can be changed.</p>
    <Input label="The old key works for (hours)" name="grace_hours" type="number" min={0} max={168} defaultValue="24" />
  </>
);

export const graceHours = (values: Values): number => values.number("grace_hours") ?? 0;
