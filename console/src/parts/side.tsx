/** A panel at the side for the entry that is open. Its address has `open`, so Back closes it. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./basics";
import { type Loaded, Shown } from "./data";
import { go, withFilters } from "./routing";

/** Esc in a dialog that the panel holds closes only the dialog. */
const leaves = ({ key, target }: KeyboardEvent) =>
  key === "Escape" && target instanceof Element && !target.closest("dialog");

const close = () => go(withFilters({ open: "" }));

export function Side({ title, children }: { title: ComponentChildren; children: ComponentChildren }) {
  const box = useRef<HTMLElement>(null);
  useEffect(() => box.current?.focus(), []);
  return (
    <aside
      class="side"
      ref={box}
      tabIndex={-1}
      aria-label={typeof title === "string" ? title : "Details"}
      onKeyDown={(event) => leaves(event) && close()}
    >
      <header>
        <h2>{title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      {children}
    </aside>
  );
}

/** The panel of an entry that is read by its id, since the list may not have it. `kind` is its title until then. */
export const EntrySide = <Found,>({
  loaded,
  kind,
  title,
  children,
}: {
  loaded: Loaded<Found>;
  kind: string;
  title: (found: Found) => string;
  children: (found: Found) => ComponentChildren;
}) => (
  <Side title={loaded.data ? title(loaded.data) : kind}>
    <Shown loaded={loaded}>{children}</Shown>
  </Side>
);
