/** Data of the API in a panel, in its four states: loading, failed, empty and there. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { asProblem, type Problem } from "./api";
import type { paths } from "./openapi";
import { ProblemBox } from "./problems";
import { type Answer, addressOf, changes, type Given, get } from "./session";

export interface Loaded<Found> {
  data: Found | null;
  problem: Problem | null;
  /** While newer data is awaited, what was read before stays. */
  stale: boolean;
  reload: () => void;
}

/** Reads when the address changes, after each change made on this page, and every so many seconds in a visible tab: the
 * pause may depend on what was read, and 0 is never. */
export function useData<Path extends keyof paths>(
  path: Path,
  given: Given = {},
  pause: number | ((data: Answer<Path, "get"> | null) => number) = 0,
): Loaded<Answer<Path, "get">> {
  type Found = Answer<Path, "get">;
  const address = addressOf(path, given);
  const [round, setRound] = useState(0);
  const [state, setState] = useState<{ data: Found | null; problem: Problem | null; read: string }>({
    data: null,
    problem: null,
    read: "",
  });
  const wanted = `${address} ${changes.value} ${round}`;
  const reload = () => setRound((before) => before + 1);
  useEffect(() => {
    const controller = new AbortController();
    get(path, given, controller.signal).then(
      (data) => setState({ data, problem: null, read: wanted }),
      (error) => controller.signal.aborted || setState({ data: null, problem: asProblem(error), read: wanted }),
    );
    return () => controller.abort();
  }, [wanted]);
  const everySeconds = typeof pause === "function" ? pause(state.data) : pause;
  useEffect(() => {
    if (!everySeconds) return;
    const timer = setInterval(() => document.hidden || reload(), everySeconds * 1000);
    return () => clearInterval(timer);
  }, [everySeconds]);
  return { data: state.data, problem: state.problem, stale: state.read !== wanted, reload };
}

/** Shows what was loaded. An error is never shown as an empty list. */
export function Shown<Found>({
  loaded,
  children,
}: {
  loaded: Loaded<Found>;
  children: (data: Found) => ComponentChildren;
}) {
  if (loaded.problem) return <Failure problem={loaded.problem} retry={loaded.reload} />;
  if (loaded.data === null) return <Waiting />;
  return (
    <div class="shown" aria-busy={loaded.stale}>
      {children(loaded.data)}
    </div>
  );
}

export function Failure({ problem, retry }: { problem: Problem; retry: () => void }) {
  const isMissing = problem.status === 404;
  const isRefused = problem.status === 403; // to ask again changes nothing
  return (
    <div class="failure">
      <ProblemBox problem={problem} title={isMissing ? "This is not there" : "This could not be loaded"} />
      {!isMissing && !isRefused && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

export const Waiting = () => (
  <div class="waiting-lines" role="status">
    <span class="offscreen">Loading…</span>
    <i />
    <i />
    <i />
  </div>
);

export function Panel({
  title,
  aside,
  children,
}: {
  title?: ComponentChildren;
  aside?: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <section class="panel">
      {(title || aside) && (
        <header>
          {title && <h2>{title}</h2>}
          {aside && <div class="end">{aside}</div>}
        </header>
      )}
      {children}
    </section>
  );
}
