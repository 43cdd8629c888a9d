/** The address after `#`: which view is open, with its filters. Back, reload and a pasted link restore it. */
import { computed, signal } from "@preact/signals";

export type Filters = Record<string, string>;

const hash = signal(location.hash);
addEventListener("hashchange", () => {
  hash.value = location.hash;
});

export interface Route {
  /** `#/orgs/org_1` has the parts `orgs` and `org_1`. */
  parts: string[];
  filters: Filters;
}

export const route = computed<Route>(() => {
  const [path = "", query = ""] = hash.value.replace(/^#\/?/, "").split("?");
  return {
    parts: path.split("/").filter(Boolean).map(decoded),
    filters: Object.fromEntries(new URLSearchParams(query)),
  };
});

export function link(path: string, filters: Filters = {}): string {
  const kept = Object.entries(filters).filter(([, value]) => value !== "");
  return kept.length ? `#/${path}?${new URLSearchParams(kept)}` : `#/${path}`;
}

/** A link to an entry, whose id may contain anything. */
export const linkTo = (path: string, id: string): string => link(`${path}/${encodeURIComponent(id)}`);

export function go(address: string): void {
  location.hash = address;
}

const here = () => route.value.parts.map(encodeURIComponent).join("/");

/** The address of this view with other filters. Every filter but the cursor itself leads back to the first page. */
export function withFilters(changed: Filters): string {
  const { cursor: _, ...kept } = route.value.filters;
  return link(here(), { ...kept, ...changed });
}

/** Changes filters without a new step in the history, while a person types. */
export function refine(changed: Filters): void {
  history.replaceState(null, "", withFilters(changed));
  hash.value = location.hash;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
