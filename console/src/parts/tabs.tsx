/** The sections of one entry's page. Each has an address of its own. */
import { link, route } from "./routing";

export interface Tab {
  /** Empty for the first. */
  path: string;
  name: string;
}

/** The section that is open: the third part of `#/orgs/<id>/<section>`. */
export const openTab = (): string => route.value.parts[2] ?? "";

export function Tabs({ tabs, label }: { tabs: Tab[]; label: string }) {
  const [list = "", id = ""] = route.value.parts;
  const addressOf = (path: string) => link([list, encodeURIComponent(id), path].filter(Boolean).join("/"));
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map(({ path, name }) => (
        <a key={path} href={addressOf(path)} aria-current={path === openTab() ? "page" : undefined}>
          {name}
        </a>
      ))}
    </nav>
  );
}

/** Sections of a list's page, as the filter `tab`. The first has none. */
export function FilterTabs({ tabs, label }: { tabs: [tab: string, name: string][]; label: string }) {
  const open = route.value.filters.tab ?? "";
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map(([tab, name]) => (
        <a key={tab} href={link(route.value.parts[0] ?? "", { tab })} aria-current={tab === open ? "page" : undefined}>
          {name}
        </a>
      ))}
    </nav>
  );
}
