/** The log of a model's engine, with what is wrong on top. */
import { Panel, Shown, useData } from "../parts/data";
import { Choice } from "../parts/filters";
import { counted } from "../parts/numbers";
import { route } from "../parts/routing";
import { type Deployment, Diagnosed } from "./fleet";

const LINES: [string, string][] = [
  ["1000", "1,000 lines"],
  ["5000", "5,000 lines"],
];

/** The host is asked for it each time, and each time is in the audit log: so it is read again only on demand. */
export function Log({ row }: { row: Deployment }) {
  const lines = route.value.filters.lines ?? 200;
  const loaded = useData("/admin/models/{deployment_id}/logs", {
    path: { deployment_id: row.id },
    query: { lines, diagnose: true },
  });
  return (
    <Panel
      title="Log of the engine"
      aside={
        <>
          <Choice name="lines" label="End of" all="200 lines" options={LINES} />
          <button type="button" disabled={loaded.stale} onClick={loaded.reload}>
            Read again
          </button>
        </>
      }
    >
      <Shown loaded={loaded}>
        {({ logs, diagnosis }) => (
          <>
            {diagnosis.detected && <Diagnosed of={diagnosis} />}
            {row.host.contact !== "seen" && (
              <p class="soft">The host does not call: this is the end of the log of its last failure.</p>
            )}
            {logs ? (
              // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must take the focus to be scrolled by keyboard
              <section class="log" tabIndex={0} aria-label="Log">
                <code>{logs}</code>
              </section>
            ) : (
              <p class="soft">There is no log: no engine was started yet.</p>
            )}
            {logs && <p class="soft small">{counted(logs.split("\n").length)} lines. Secrets are replaced.</p>}
          </>
        )}
      </Shown>
    </Panel>
  );
}
