/** A few figures side by side, each with its name and what explains it. */
import type { ComponentChildren } from "preact";

export interface Figure {
  name: string;
  value: ComponentChildren;
  note?: ComponentChildren;
  href?: string;
  large?: boolean;
}

export function Figures({ figures }: { figures: Figure[] }) {
  return (
    <dl class="tiles">
      {figures.map(({ name, value, note, href, large }) => (
        <div key={name} class={large ? "large-tile" : undefined}>
          <dt>{href ? <a href={href}>{name}</a> : name}</dt>
          <dd>
            <b>{value}</b>
            {note && <span class="soft small">{note}</span>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** How much of a limit is used. Without a limit only the number is shown. */
export function Meter({ used, limit, label }: { used: number; limit: number | null; label: string }) {
  return limit === null ? null : <meter min={0} max={limit || 1} value={used} high={limit * 0.8} aria-label={label} />;
}

/** Name and value of one thing, line by line. */
/** Ids or words, each as code. */
export const codes = (all: string[] | null, otherwise: string): ComponentChildren =>
  all?.map((one) => <code key={one}>{one} </code>) ?? otherwise;

export function Facts({ facts }: { facts: [name: string, value: ComponentChildren][] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
