/** The page that asks who is there, and the dialog that asks again before a grave change. */
import { useEffect, useState } from "preact/hooks";
import { asProblem, Failed, type Problem, problem } from "./api";
import { notify } from "./basics";
import { useData } from "./data";
import { Dialog, Form, Input, type Values } from "./dialogs";
import { ProblemBox } from "./problems";
import { go, link, route } from "./routing";
import { challenge, farewell, me, type Proof, recognise, signIn } from "./session";
import { addressOfProvider, type Project, providers, returned, sendLink, withPassword } from "./supabase";

type Way = "key" | "password" | "supabase";

const NAMES: Record<Way, string> = { key: "API key", password: "Password", supabase: "Supabase" };

/** The token of a sign-in link: `#/sign-in/<token>`. */
const tokenOf = (): string | null => (route.value.parts[0] === "sign-in" ? (route.value.parts[1] ?? null) : null);

/** What the address brings: a sign-in link, or what Supabase answered. */
function brought(): Proof | string | null {
  const token = tokenOf();
  if (token) return { link: token };
  const told = returned();
  return told && ("token" in told ? { supabase_token: told.token } : told.message);
}

export function SignIn() {
  const given = brought();
  return (
    <main class="connect">
      <div class="card">
        <h1>Sign in</h1>
        {farewell.value && (
          <p class="soft" role="status">
            {farewell.value}
          </p>
        )}
        {typeof given === "string" && <p role="alert">{given}</p>}
        {given && typeof given !== "string" ? <ByAddress proof={given} /> : <ByHand onDone={() => {}} />}
      </div>
    </main>
  );
}

function ByAddress({ proof }: { proof: Proof }) {
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    signIn(proof).then(
      () => go("#/"),
      (error) => setProblem(asProblem(error)),
    );
  }, [JSON.stringify(proof)]);
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
  const project = useData("/auth/ways").data?.supabase ?? null;
  const submit = async (values: Values) => {
    await signIn(await proofOf(way, values, project));
    onDone();
  };
  const ways: Way[] = project ? ["key", "password", "supabase"] : ["key", "password"];
  return (
    <>
      <fieldset class="segments">
        <legend class="offscreen">How</legend>
        {ways.map((value) => (
          <label key={value}>
            <input type="radio" name="way" checked={way === value} onChange={() => setWay(value)} />
            <span>{NAMES[value]}</span>
          </label>
        ))}
      </fieldset>
      <Form key={way} action="Sign in" submit={submit}>
        {way === "key" ? <KeyField /> : <PasswordFields />}
      </Form>
      {way === "supabase" && project && <OtherWays project={project} />}
    </>
  );
}

const KeyField = () => (
  <Input
    label="API key"
    name="key"
    type="password"
    placeholder="tg_live_…"
    spellcheck={false}
    required
    hint="It is exchanged for a session of this browser, and is not kept here."
  />
);

const PasswordFields = () => (
  <>
    <Input label="Email" name="email" type="email" autocomplete="username" required />
    <Input label="Password" name="password" type="password" autocomplete="current-password" required />
  </>
);

/** A link by email, or another provider that the Supabase project has enabled. */
function OtherWays({ project }: { project: Project }) {
  const [names, setNames] = useState<string[]>([]);
  useEffect(() => {
    providers(project).then(setNames, () => {});
  }, [project.url]);
  const send = async (values: Values) => {
    await sendLink(project, values.text("email"));
    notify("If the address has an account, a link was sent to it.");
  };
  return (
    <>
      <Form action="Send me a link" submit={send}>
        <Input label="Or a link to your email" name="email" type="email" autocomplete="username" required />
      </Form>
      {names.map((name) => (
        <a key={name} class="button" href={addressOfProvider(project, name)}>
          Sign in with {name}
        </a>
      ))}
    </>
  );
}

async function proofOf(way: Way, values: Values, project: Project | null): Promise<Proof> {
  if (way === "key") return { key: values.text("key") };
  const [email, password] = [values.text("email"), values.exact("password")];
  if (way === "password" || !project) return { email, password };
  return { supabase_token: await withPassword(project, email, password) };
}

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
  if (tokenOf() || returned()) me.value = null;
  else await recognise();
}
