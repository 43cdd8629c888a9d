/** The six limits of requests and tokens: their fields in a form, and their names. */
import { Input, type Values } from "./dialogs";

export const WINDOWS = [
  ["requests_per_minute", "Requests a minute"],
  ["requests_per_hour", "Requests an hour"],
  ["requests_per_day", "Requests a day"],
  ["tokens_per_minute", "Tokens a minute"],
  ["tokens_per_hour", "Tokens an hour"],
  ["tokens_per_day", "Tokens a day"],
] as const;

type Window = (typeof WINDOWS)[number][0];
export type SixLimits = { [name in Window]?: number | null };

export const hasLimits = (limits: SixLimits | null | undefined): boolean =>
  WINDOWS.some(([name]) => (limits?.[name] ?? null) !== null);

export const LimitFields = ({ limits, none = "No limit" }: { limits?: SixLimits | null; none?: string }) => (
  <div class="pair">
    {WINDOWS.map(([name, label]) => (
      <Input
        key={name}
        label={label}
        name={name}
        param={`limits.${name}`}
        type="number"
        min={0}
        placeholder={none}
        defaultValue={limits?.[name]?.toString() ?? ""}
      />
    ))}
  </div>
);

/** All six. Those left empty are null. */
export const limitsOf = (values: Values): SixLimits =>
  Object.fromEntries(WINDOWS.map(([name]) => [name, values.number(name)]));
