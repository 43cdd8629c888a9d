/** Supabase Auth, where the deployment uses it. It gives access tokens, which Tollgate exchanges for sessions. */
import { Failed, problem } from "./api";
import type { Answer } from "./session";

export type Project = NonNullable<Answer<"/auth/ways", "get">["supabase"]>;

/** This page without what follows `#`, to which Supabase leads back. */
const here = (): string => location.href.replace(/#.*/, "");

async function ask(project: Project, path: string, body?: unknown): Promise<Record<string, unknown>> {
  const headers = { apikey: project.publishable_key, "content-type": "application/json" };
  const sent = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const response = await fetch(`${project.url}/auth/v1/${path}`, { ...sent, credentials: "omit" });
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Failed(refusal(told, response.status));
  return told;
}

/** Newer versions of Supabase Auth say `msg`, older ones `error_description`. */
const refusal = ({ error_code, msg, error_description }: Record<string, unknown>, status: number) =>
  problem({ code: error_code, message: msg ?? error_description }, status, null);

/** The access token of a person with a password at Supabase. */
export async function withPassword(project: Project, email: string, password: string): Promise<string> {
  return String((await ask(project, "token?grant_type=password", { email, password })).access_token);
}

/** Asks Supabase to send a link that leads back here with an access token. It makes no new accounts. */
export const sendLink = (project: Project, email: string): Promise<unknown> =>
  ask(project, `otp?redirect_to=${encodeURIComponent(here())}`, { email, create_user: false });

/** The providers that the project has enabled, such as google. */
export async function providers(project: Project): Promise<string[]> {
  const { external } = await ask(project, "settings");
  const enabled = Object.entries((external ?? {}) as Record<string, boolean>).filter(([, is]) => is);
  return enabled.map(([name]) => name).filter((name) => !OWN_WAYS.has(name));
}

const OWN_WAYS = new Set(["email", "phone", "anonymous_users"]);

export const addressOfProvider = (project: Project, name: string): string =>
  `${project.url}/auth/v1/authorize?provider=${encodeURIComponent(name)}&redirect_to=${encodeURIComponent(here())}`;

/** What Supabase says when it leads back here: a token, or why there is none. */
export function returned(): { token: string } | { message: string } | null {
  const said = new URLSearchParams(location.hash.slice(1));
  const token = said.get("access_token");
  if (token) return { token };
  const message = said.get("error_description");
  return message ? { message } : null;
}
