/** What a model runs: its options, which may be changed, and what would be started. */
import { useState } from "preact/hooks";
import { notify } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { Form, Input, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { change } from "../parts/session";
import { DryRunShown, useDryRun } from "./dry_run";
import { type Deployment, engineName } from "./fleet";
import { SpecFields, specOf } from "./spec_fields";

/** Other files or another engine make another model. */
export function SpecPage({ row }: { row: Deployment }) {
  const host = useData("/admin/hosts/{host_id}", { path: { host_id: row.host_id } }).data ?? undefined;
  const [values, setValues] = useState<Values | null>(null);
  const of = (given: Values) => ({
    ...specOf(given, row.engine, row.spec.source, given.text("served_name")),
    kind: row.kind,
  });
  const dryRun = useDryRun(values && { host_id: row.host_id, spec: of(values), facts: row.facts });
  const submit = async (given: Values) => {
    const made = await change("patch", "/admin/models/{deployment_id}", {
      path: { deployment_id: row.id },
      body: { spec: of(given) },
    });
    notify(
      made.generation > made.applied_generation ? "Saved. It runs as before until the spec is applied." : "Saved.",
    );
  };
  return (
    <div class="wizard">
      <Panel title="Spec">
        <Waiting row={row} />
        <Facts
          facts={[
            ["Engine", engineName(row.engine)],
            [
              "Files",
              <code key="files">
                {row.spec.source.type === "hub" ? row.spec.source.repo_id : row.spec.source.path}
              </code>,
            ],
          ]}
        />
        <Form key={host?.id} action="Save" submit={submit} onInput={setValues}>
          <Input
            label="Name for clients"
            name="served_name"
            param="spec.served_name"
            required
            maxLength={128}
            spellcheck={false}
            defaultValue={row.served_name}
          />
          <SpecFields engine={row.engine} host={host} start={row.spec} />
        </Form>
      </Panel>
      <Panel title="What would be started">
        <DryRunShown dryRun={dryRun} host={host} />
      </Panel>
    </div>
  );
}

const Waiting = ({ row }: { row: Deployment }) =>
  row.generation > row.applied_generation ? (
    <p class="status warn wraps">
      It runs generation {row.applied_generation}; this is {row.generation}. Apply it at the top.
    </p>
  ) : null;
