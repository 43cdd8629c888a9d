/** The parts that pages are made of. */
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Failed } from "./api";
import { exactCredits, shownCredits } from "./money";

const PATHS = {
  check: "M20 6 9 17l-5-5",
  copy: "M9 9h12v12H9zM5 15H3V3h12v2",
  image: "M3 3h18v18H3zM9 9h.01M21 15l-5-5L5 21",
  down: "M12 3v13m-6-6 6 6 6-6M4 21h16",
  key: "M15.5 7.5 19 4m-8.6 8.6a5 5 0 1 1-7.07 7.07 5 5 0 0 1 7.07-7.07zm0 0L15.5 7.5l3 3L22 7l-3-3",
  leave: "M9 21H4V3h5m7 14 5-5-5-5m5 5H9",
  menu: "M3 6h18M3 12h18M3 18h18",
  plus: "M12 5v14M5 12h14",
  search: "m21 21-4.3-4.3M11 19a8 8 0 1 1 0-16 8 8 0 0 1 0 16z",
  send: "M12 19V5M5 12l7-7 7 7",
  stop: "M6 6h12v12H6z",
  close: "M6 6l12 12M18 6 6 18",
  trash: "M3 6h18M8 6V4h8v2M19 6l-1 14H6L5 6",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** An amount of credits, rounded for reading. Exact on hover and when copied. */
export function Money({ nanos }: { nanos: bigint }) {
  const exact = `${exactCredits(nanos)} credits`;
  const copyExact = (event: ClipboardEvent) => {
    event.clipboardData?.setData("text/plain", exactCredits(nanos));
    event.preventDefault();
  };
  return (
    <data class="money" value={nanos.toString()} title={exact} onCopy={copyExact}>
      {shownCredits(nanos)}
    </data>
  );
}

interface Notice {
  text: string;
  undo?: () => void;
}
const notice = signal<Notice | null>(null);
let timer = 0;

export function notify(text: string, undo?: () => void): void {
  notice.value = undo ? { text, undo } : { text };
  clearTimeout(timer);
  timer = setTimeout(close, undo ? 10_000 : 4000);
}

/** A change without a form has no other place to show why it was refused. */
addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Failed)) return;
  event.preventDefault();
  notify(event.reason.message);
});

const close = () => {
  notice.value = null;
};

export function Toast() {
  const shown = notice.value;
  const undo = () => {
    shown?.undo?.();
    close();
  };
  return (
    <div class="toasts" role="status">
      {shown && (
        <div class="toast">
          {shown.text}
          {shown.undo && (
            <button type="button" class="link" onClick={undo}>
              Undo
            </button>
          )}
        </div>
      )}
    </div>
  );
}

/** Asks for a new entry: above a list, or in it while it is empty, where it says which is the `first`. */
export const AddButton = ({
  label,
  first,
  onClick,
}: {
  label: string;
  first?: string | undefined;
  onClick: () => void;
}) => (
  <button type="button" class={first ? "" : "primary"} onClick={onClick}>
    {first ?? (
      <>
        <Icon name="plus" /> {label}
      </>
    )}
  </button>
);

export interface MayBeFirst {
  first?: string;
}

export function Copy({ text, label, children }: { text: () => string; label: string; children?: ComponentChildren }) {
  return (
    <button type="button" class="quiet" aria-label={children ? undefined : label} onClick={() => copy(text(), label)}>
      {children ?? <Icon name="copy" />}
    </button>
  );
}

async function copy(text: string, label: string): Promise<void> {
  const copied = (await fromClipboardApi(text)) || fromSelection(text);
  notify(copied ? `${label}: copied` : "Copying failed. Select the text and copy it by hand.");
}

const fromClipboardApi = (text: string): Promise<boolean> =>
  navigator.clipboard?.writeText(text).then(
    () => true,
    () => false,
  ) ?? Promise.resolve(false);

/** For plain http, which has no clipboard API. */
function fromSelection(text: string): boolean {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

export function Field({ label, hint, children }: { label: string; hint?: string; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noLabelWithoutControl: the control is among the children
    <label class="field">
      <span>
        {label}
        {hint && <small>{hint}</small>}
      </span>
      {children}
    </label>
  );
}
