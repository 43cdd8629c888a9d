/** Sections of a page. Each has an address of its own. */
import { useEffect, useRef } from "preact/hooks";
import { link, route, withFilters } from "./routing";

/** The first section has an empty path. */
export type Tab = [path: string, name: string];

interface BarProps {
  tabs: Tab[];
  label: string;
  open: string;
  addressOf: (path: string) => string;
}

function Bar({ tabs, label, open, addressOf }: BarProps) {
  const bar = useRef<HTMLElement>(null);
  useEffect(() => {
    bar.current?.querySelector("[aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  }, [open]);
  return (
    <nav class="tabs scroll" ref={bar} aria-label={label}>
      {tabs.map(([path, name]) => (
        <a key={path} href={addressOf(path)} aria-current={path === open ? "page" : undefined}>
          {name}
        </a>
      ))}
    </nav>
  );
}

type TabsProps = Pick<BarProps, "tabs" | "label">;

/** The section that is open: the third part of `#/orgs/<id>/<section>`. */
export const openTab = (): string => route.value.parts[2] ?? "";

export function Tabs(props: TabsProps) {
  const [list = "", id = ""] = route.value.parts;
  const addressOf = (path: string) => link([list, encodeURIComponent(id), path].filter(Boolean).join("/"));
  return <Bar {...props} open={openTab()} addressOf={addressOf} />;
}

/** Sections of a list's page, as the filter `tab`. Other filters stay only where the sections share them. */
export function FilterTabs({ keepsFilters = false, ...props }: TabsProps & { keepsFilters?: boolean }) {
  const { parts, filters } = route.value;
  const addressOf = (tab: string) =>
    keepsFilters ? withFilters({ tab, open: "", sort: "" }) : link(parts[0] ?? "", { tab });
  return <Bar {...props} open={filters.tab ?? ""} addressOf={addressOf} />;
}
