/** Credits from integer nanos. BigInt keeps them exact. */
const NANOS = 1_000_000_000n;
const grouped = new Intl.NumberFormat("en-US");

/** Nanos of a decimal string: the API's, or what a person typed. Null if it is no amount. */
export function nanosOf(text: string): bigint | null {
  const parts = /^([-−]?)(\d{1,12})(?:\.(\d{0,9}))?$/.exec(text.replaceAll(/[,\s]/g, ""));
  if (!parts) return null;
  const size = BigInt(parts[2] ?? "0") * NANOS + BigInt((parts[3] ?? "").padEnd(9, "0"));
  return parts[1] ? -size : size;
}

export function exactCredits(nanos: bigint): string {
  const size = nanos < 0n ? -nanos : nanos;
  const fraction = (size % NANOS).toString().padStart(9, "0").replace(/0+$/, "").padEnd(2, "0");
  return `${nanos < 0n ? "−" : ""}${grouped.format(size / NANOS)}.${fraction}`;
}

/** Two decimals; small amounts get three significant digits, to at most six decimals. */
export function shownCredits(nanos: bigint): string {
  const size = nanos < 0n ? -nanos : nanos;
  if (size > 0n && size < 1000n) return nanos < 0n ? ">−0.000001" : "<0.000001";
  const decimals = size >= NANOS || size === 0n ? 2 : Math.min(6, Math.max(2, 12 - size.toString().length));
  const step = 10n ** BigInt(9 - decimals);
  const rounded = ((size + step / 2n) / step) * step;
  return exactCredits(nanos < 0n ? -rounded : rounded);
}

/** The price of a million tokens, from the decimal string of one. Null if the price varies. */
export function perMillion(price: string | undefined): string | null {
  const parts = /^(\d+)(?:\.(\d+))?$/.exec(price ?? "0");
  if (!parts) return null;
  const digits = (parts[2] ?? "").padEnd(6, "0");
  const whole = BigInt(parts[1] + digits.slice(0, 6));
  return `${grouped.format(whole)}.${digits.slice(6).replace(/0+$/, "").padEnd(2, "0")}`;
}

/** The price of one token, from what a person typed for a million. What is no price is left for the server to refuse. */
export function perToken(price: string): string {
  const parts = /^(\d+)(?:\.(\d+))?$/.exec(price.replaceAll(",", ""));
  if (!parts) return price;
  const whole = (parts[1] ?? "").padStart(7, "0");
  return `${BigInt(whole.slice(0, -6))}.${whole.slice(-6)}${parts[2] ?? ""}`.replace(/\.?0+$/, "");
}
