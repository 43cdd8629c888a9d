/** What the channels of operators and the webhooks of owners share: state, test, secret. */
import { useState } from "preact/hooks";
import { asProblem, type Problem } from "./api";
import { notify } from "./basics";
import type { Delivery } from "./deliveries";
import { reveal } from "./dialogs";
import { counted, Status } from "./numbers";
import { ProblemBox } from "./problems";

interface Told {
  state: string;
  failures: number;
  last_error: string | null;
}

/** Disabled, failing, or active. */
export const ChannelState = ({ of: { state, failures } }: { of: Told }) => (
  <Status of={state === "active" && failures ? "failing" : state} />
);

/** What went wrong last, while it still does. */
export const Failing = ({ of: { failures, last_error } }: { of: Told }) =>
  failures ? (
    <div class="problem" role="status">
      <strong>{failures === 1 ? "The last attempt failed" : `The last ${counted(failures)} attempts failed`}</strong>
      <p>{last_error}</p>
    </div>
  ) : null;

export type Asked = "edit" | "secret" | "delete" | null;

interface ActionsProps {
  of: Told;
  hasSecret: boolean;
  ask: (asked: Asked) => void;
  turn: (state: "active" | "disabled") => Promise<void>;
}

export const ChannelActions = ({ of: { state }, hasSecret, ask, turn }: ActionsProps) => (
  <div class="actions start">
    <button type="button" onClick={() => ask("edit")}>
      Edit
    </button>
    <button type="button" onClick={() => void turn(state === "active" ? "disabled" : "active")}>
      {state === "active" ? "Disable" : "Enable"}
    </button>
    {hasSecret && (
      <button type="button" onClick={() => ask("secret")}>
        New secret
      </button>
    )}
    <button type="button" class="danger" onClick={() => ask("delete")}>
      Delete
    </button>
  </div>
);

/** Sends a test, and shows what the receiver answered. */
export function TestButton({ test }: { test: () => Promise<Delivery> }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [ended, setEnded] = useState<Delivery | null>(null);
  const send = async () => {
    setBusy(true);
    setProblem(null);
    setEnded(null);
    try {
      setEnded(await test());
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  return (
    <>
      <button type="button" class="primary start" disabled={busy} onClick={() => void send()}>
        {busy ? "Waiting for the receiver…" : "Send a test"}
      </button>
      {problem && <ProblemBox problem={problem} />}
      {ended && <Answered of={ended} />}
    </>
  );
}

function Answered({ of }: { of: Delivery }) {
  const last = of.attempts[of.attempts.length - 1];
  const isSent = of.state === "sent";
  return (
    <div class={isSent ? "answered" : "problem"} role="status">
      <strong>{isSent ? "The receiver took the test" : "The test was not taken"}</strong>
      <p>{last?.error ?? (last?.status ? `It answered ${last.status}.` : "Another server sends it.")}</p>
      {last?.answer && <pre class="code">{last.answer}</pre>}
    </div>
  );
}

/** A secret of a webhook: 32 random bytes, as Standard Webhooks writes them. */
export function newSecret(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return `whsec_${btoa(String.fromCharCode(...bytes))}`;
}

const TO_STORE = "Store it at the receiver, which verifies with it that a message is ours. It is not shown again.";

/** After a channel was made or changed. There is a secret only if one was made. */
export function saved(name: string, secret: string | null, done: string): void {
  if (secret) reveal({ title: `Secret of ${name}`, secret, hint: TO_STORE });
  else notify(done);
}
