/** What an event has to tell beside its own columns, in the names of the API. */
import { Facts } from "./figures";

const written = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

export function Details({ of }: { of: Record<string, unknown> }) {
  const entries = Object.entries(of);
  if (!entries.length) return null;
  return (
    <>
      <h3>Details</h3>
      <Facts facts={entries.map(([name, value]) => [name, <code key={name}>{written(value)}</code>])} />
    </>
  );
}
