/** A panel at the side for the entry that is open. Its address has `open`, so Back closes it. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./basics";
import { go, withFilters } from "./routing";

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
      onKeyDown={(event) => event.key === "Escape" && close()}
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
