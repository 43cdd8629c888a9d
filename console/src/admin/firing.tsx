/** How many alerts fire, beside the name of their view: as the last answer that counted them said. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { counted } from "../parts/numbers";
import { me } from "../parts/session";

const lately = signal<number | null>(null);

/** Null while it is not known. */
export function useFiring(count: number | null): void {
  useEffect(() => {
    if (count !== null) lately.value = count;
  }, [count]);
}

export function FiringBadge() {
  const count = lately.value ?? me.value?.firing_alerts ?? 0;
  return count ? (
    <span class="firing">
      {counted(count)}
      <span class="offscreen"> firing</span>
    </span>
  ) : null;
}
