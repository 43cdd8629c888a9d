/** The fields of a key, for the form that creates it and the one that changes it. */
import { Check, Input, Lines, Select, type Values } from "./dialogs";
import { hasLimits, LimitFields, limitsOf } from "./limit_fields";
import type { Answer } from "./session";

export type Key = Answer<"/user/api-keys", "get">["data"][number];

const RESETS: [string, string][] = [
  ["never", "Never"],
  ["daily", "Each day (UTC)"],
  ["weekly", "Each week"],
  ["monthly", "Each month"],
];
const SCOPES: [scope: string, label: string, usual: boolean][] = [
  ["chat", "Chat completions", true],
  ["completions", "Text completions", true],
  ["embeddings", "Embeddings", true],
  ["models", "Listing models", true],
  ["usage", "Reading balance and usage", true],
  ["keys", "Managing keys", false],
];
const OPERATOR_SCOPE: [string, string, boolean] = ["admin", "Everything an operator does", false];

const CACHE: [string, string][] = [
  ["", "As the org"],
  ["true", "Used where a request does not say"],
  ["false", "Used where a request asks for it"],
];

/** Whether the completion cache is used for requests that do not say. */
export const cacheOf = ({ cache }: Pick<Key, "cache">): string => CACHE.find(([is]) => is === asText(cache))?.[1] ?? "";
const asText = (cache: boolean | null): string => cache?.toString() ?? "";

export function KeyFields({ row, operator = false }: { row?: Key; operator?: boolean }) {
  return (
    <>
      <Input label="Name" name="name" required maxLength={200} defaultValue={row?.name ?? ""} />
      {!row && (
        <Select
          label="Environment"
          name="environment"
          options={[
            ["live", "Live: paid from the balance"],
            ["test", "Test: a sandbox, for free"],
          ]}
        />
      )}
      <Scopes row={row} operator={operator} />
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
      <MoreLimits row={row} />
    </>
  );
}

const Scopes = ({ row, operator }: { row: Key | undefined; operator: boolean }) => (
  <fieldset class="checks">
    <legend>May be used for</legend>
    {(operator ? [...SCOPES, OPERATOR_SCOPE] : SCOPES).map(([scope, label, usual]) => (
      <Check
        key={scope}
        label={label}
        name="scopes"
        value={scope}
        defaultChecked={row ? row.scopes.includes(scope) : usual}
      />
    ))}
  </fieldset>
);

const MoreLimits = ({ row }: { row: Key | undefined }) => (
  <details
    class="more"
    open={row && (hasLimits(row.limits) || row.max_concurrent_requests !== null || row.cache !== null)}
  >
    <summary>More limits, and the cache</summary>
    <div class="pair">
      <Input
        label="Tokens in all"
        name="tokens_in_all"
        type="number"
        min={0}
        placeholder="No limit"
        defaultValue={row?.tokens_in_all?.toString() ?? ""}
      />
      <Input
        label="The month starts on day"
        name="quota_reset_day"
        type="number"
        min={1}
        max={28}
        defaultValue={row?.quota_reset_day.toString() ?? "1"}
      />
      <Input
        label="Open requests"
        name="max_concurrent_requests"
        type="number"
        min={1}
        placeholder="As the org"
        defaultValue={row?.max_concurrent_requests?.toString() ?? ""}
      />
    </div>
    <LimitFields limits={row?.limits ?? null} />
    <Select label="Completion cache" name="cache" options={CACHE} defaultValue={asText(row?.cache ?? null)} />
  </details>
);

/** The body for a new key, or the changes of an old one. */
export function bodyOf(values: Values, row?: Key): Record<string, unknown> {
  const budget = values.optional("budget_credits");
  const body = {
    name: values.text("name"),
    budget_credits: budget,
    budget_reset: budget ? values.text("budget_reset") : null,
    tokens_per_month: values.number("tokens_per_month"),
    expires_at: expiry(values.optional("expires_at"), row),
    allowed_models: values.list("allowed_models"),
    ip_allowlist: values.list("ip_allowlist"),
    scopes: values.all("scopes"),
    tokens_in_all: values.number("tokens_in_all"),
    quota_reset_day: values.number("quota_reset_day"),
    max_concurrent_requests: values.number("max_concurrent_requests"),
    limits: limitsOf(values),
    cache: values.optional("cache") && values.text("cache") === "true",
  };
  return row ? body : { ...body, environment: values.text("environment") };
}

/** The end of the chosen day. A day that was not changed keeps its hour. */
function expiry(day: string | null, row?: Key): string | null {
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
