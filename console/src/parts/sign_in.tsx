/** The page that asks who is there, and the dialog that asks again before a grave change. */
import { useEffect, useState } from "preact/hooks";
import { asProblem, Failed, type Problem, problem } from "./api";
import { notify } from "./basics";
import { Dialog, Form, Input, type Values } from "./dialogs";
import { ProblemBox } from "./problems";
import { go, link, route } from "./routing";
import { challenge, farewell, me, type Proof, recognise, signIn } from "./session";

type Way = "key" | "password";

const WAYS: [Way, string][] = [
  ["key", "API key"],
  ["password", "Password"],
];

/** The token of a sign-in link: `#/sign-in/<token>`. */
const tokenOf = (): string | null => (route.value.parts[0] === "sign-in" ? (route.value.parts[1] ?? null) : null);

export function SignIn() {
  const token = tokenOf();
  return (
    <main class="connect">
      <div class="card">
        <h1>Sign in</h1>
        {farewell.value && (
          <p class="soft" role="status">
            {farewell.value}
          </p>
        )}
        {token ? <ByLink token={token} /> : <ByHand onDone={() => {}} />}
      </div>
    </main>
  );
}

function ByLink({ token }: { token: string }) {
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    signIn({ link: token }).then(
      () => go("#/"),
      (error) => setProblem(asProblem(error)),
    );
  }, [token]);
  if (!problem) return <p class="soft">Checking the link…</p>;
  return (
    <>
      <ProblemBox problem={problem} />
      <a class="button" href={link("")}>
        Sign in another way
      </a>
    </>
  );
}

function ByHand({ onDone }: { onDone: () => void }) {
  const [way, setWay] = useState<Way>("key");
  const submit = async (values: Values) => {
    await signIn(proofOf(way, values));
    onDone();
  };
  return (
    <>
      <fieldset class="segments">
        <legend class="offscreen">How</legend>
        {WAYS.map(([value, label]) => (
          <label key={value}>
            <input type="radio" name="way" checked={way === value} onChange={() => setWay(value)} />
            <span>{label}</span>
          </label>
        ))}
      </fieldset>
      <Form action="Sign in" submit={submit}>
        {way === "key" ? (
          <Input
            label="API key"
            name="key"
            type="password"
            placeholder="tg_live_…"
            spellcheck={false}
            required
            hint="It is exchanged for a session of this browser, and is not kept here."
          />
        ) : (
          <>
            <Input label="E-mail" name="email" type="email" autocomplete="username" required />
            <Input label="Password" name="password" type="password" autocomplete="current-password" required />
          </>
        )}
      </Form>
    </>
  );
}

const proofOf = (way: Way, values: Values): Proof =>
  way === "key" ? { key: values.text("key") } : { email: values.text("email"), password: values.text("password") };

const NOT_AGAIN = problem(
  { code: "sign_in_again", message: "Nothing was changed, because you did not sign in again." },
  0,
  null,
);

/** Asks to sign in again when the server wants a fresh sign-in, and lets the change go on. */
export function SignInAgain() {
  const waiting = challenge.value;
  if (!waiting) return null;
  const settle = (how: () => void) => {
    challenge.value = null;
    how();
  };
  return (
    <Dialog title="Sign in again" onClose={() => settle(() => waiting.reject(new Failed(NOT_AGAIN)))}>
      <p class="soft">This change needs a sign-in of the last 15 minutes.</p>
      <ByHand
        onDone={() => {
          settle(waiting.resolve);
          notify("Signed in again.");
        }}
      />
    </Dialog>
  );
}

/** Finds out who is signed in. A sign-in link starts a session of its own. */
export async function start(): Promise<void> {
  if (tokenOf()) me.value = null;
  else await recognise();
}
