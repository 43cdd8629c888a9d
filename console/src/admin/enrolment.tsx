/** The command that makes a machine a host, and the wait for its agent. */

import { useData } from "../parts/data";
import { Dialog, FormDialog, Input, Secret, type Values } from "../parts/dialogs";
import { go, linkTo } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { When } from "../parts/times";
import { capabilitiesOf, engineName, gpusInWords, type Host } from "./fleet";

/** A host with the command that is shown once. */
export type Enrolled = Answer<"/admin/hosts/{host_id}/rotate", "post">;

const WAITING_SECONDS = 3;
const atHost = (id: string) => ({ path: { host_id: id } });

/** A new command. `rotate` ends the key of the host at once. */
export const enrolAgain = (id: string, rotate = false): Promise<Enrolled> =>
  rotate
    ? change("post", "/admin/hosts/{host_id}/rotate", atHost(id))
    : change("post", "/admin/hosts/{host_id}/enrolments", atHost(id));

export function AddHostDialog({ close, show }: { close: () => void; show: (made: Enrolled) => void }) {
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = {
      name: values.text("name"),
      ingress_url: values.optional("ingress_url"),
      base_dir: values.optional("base_dir"),
    };
    const { enrolment, ...host } = await change("post", "/admin/hosts", { body, idempotencyKey });
    show(enrolment ? { ...host, enrolment } : await enrolAgain(host.id));
  };
  return (
    <FormDialog title="Add a host" action="Add" onClose={close} submit={submit}>
      <p class="soft">
        A machine of your own that runs models. Its agent calls this server, never the other way round.
      </p>
      <Input label="Name" name="name" required maxLength={200} placeholder="gpu-1" />
      <Input
        label="Address of its ingress"
        name="ingress_url"
        type="url"
        placeholder="https://gpu-1.example.com:8700"
        hint="Where this server sends paid calls. Empty: what the agent says with --ingress-url."
      />
      <Input
        label="Folder of models"
        name="base_dir"
        placeholder="As the agent says with --base-dir"
        spellcheck={false}
        hint="The agent uses it only if its own command line allows it."
      />
    </FormDialog>
  );
}

/** Closes by its button alone: the token is not shown again. */
export function EnrolDialog({ given, before, close }: { given: Enrolled; before: string | null; close: () => void }) {
  const loaded = useData("/admin/hosts/{host_id}", atHost(given.id), (host) =>
    host && host.enrolled_at !== before ? 0 : WAITING_SECONDS,
  );
  const host = loaded.data;
  const isHere = !!host && host.enrolled_at !== before;
  return (
    <Dialog title={`Make a machine the host ${given.name}`} firm onClose={close}>
      <p class="soft">
        Run this on the machine. The token works once, until <When at={given.enrolment.expires_at} />, and is not shown
        again.
      </p>
      <Secret text={given.enrolment.command} label="Command" />
      <details>
        <summary>What the machine needs</summary>
        <ul class="fixes">
          <li>
            Python 3.11 or newer with Tollgate: <code>pip install './tollgate[agent]'</code> in a clone's parent folder.
          </li>
          <li>
            An engine on the <code>PATH</code>, such as <code>vllm</code> or <code>llama-server</code>.
          </li>
          <li>
            For paid calls, an ingress that this server reaches: add{" "}
            <code>--ingress 0.0.0.0:8700 --ingress-url https://…:8700 --tls-cert … --tls-key …</code>
          </li>
          <li>
            For models that are there already: <code>--base-dir FOLDER</code>
          </li>
        </ul>
      </details>
      <p role="status">
        {isHere ? (
          <span class="status good">
            {host.name} is here: {arrived(host)}
          </span>
        ) : (
          <span class="status waiting">Waiting for the agent…</span>
        )}
      </p>
      <div class="actions">
        <button
          type="button"
          class={isHere ? "primary" : undefined}
          onClick={() => {
            close();
            go(linkTo("hosts", given.id));
          }}
        >
          {isHere ? "To the host" : "I stored the command"}
        </button>
      </div>
    </Dialog>
  );
}

const arrived = (host: Host): string => {
  const { engines, gpus } = capabilitiesOf(host);
  return [
    gpus.length ? gpusInWords(host) : "no GPU",
    engines.map(engineName).join(", ") || "no engine on its PATH yet",
  ].join("; ");
};
