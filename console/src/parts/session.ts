/** Who is signed in, and calls of the API with the cookie of the session. */
import { signal } from "@preact/signals";
import { asProblem, call, Failed, type Problem } from "./api";
import type { paths } from "./openapi";

type Method = "get" | "post" | "put" | "patch" | "delete";
type Json<Responses> = Responses extends { 200: { content: { "application/json": infer Found } } }
  ? Found
  : Responses extends { 201: { content: { "application/json": infer Made } } }
    ? Made
    : never;
export type Answer<Path extends keyof paths, How extends Method> = paths[Path] extends {
  [method in How]: { responses: infer Responses };
}
  ? Json<Responses>
  : never;
export type Query = Record<string, string | number | boolean | string[] | null | undefined>;
export interface Given {
  /** The values of `{names}` in the path. */
  path?: Record<string, string>;
  query?: Query;
}
export interface Sent extends Given {
  body?: unknown;
  /** One for each dialog, so that a second click changes nothing twice. */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

export type Me = Answer<"/auth/me", "get">;

/** Undefined until the server has told. Null when nobody is signed in. */
export const me = signal<Me | null | undefined>(undefined);
/** Why the server has not told who is signed in. */
export const unknown = signal<Problem | null>(null);
/** Why there is no session any more, for the page that asks to sign in. */
export const farewell = signal("");
/** Grows with each change that was made on this page, so that what is shown is read again. */
export const changes = signal(0);
/** The dialog that asks to sign in again before a grave change: it settles the promise that the change waits for. */
export const challenge = signal<{ resolve: () => void; reject: (error: unknown) => void } | null>(null);

export function addressOf(path: string, { path: values = {}, query = {} }: Given): string {
  const filled = path.slice(1).replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(values[name] ?? ""));
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") search.append(name, String(one));
    }
  }
  return search.size ? `${filled}?${search}` : filled;
}

export const get = <Path extends keyof paths>(path: Path, given: Given = {}, signal?: AbortSignal) =>
  request<Answer<Path, "get">>("GET", addressOf(path, given), signal ? { signal } : {});

/** Asks for something with a body, when nothing on this page has to be read again. */
export const send = <Path extends keyof paths, How extends Exclude<Method, "get">>(
  how: How,
  path: Path,
  given: Sent = {},
): Promise<Answer<Path, How>> => twice(how.toUpperCase(), addressOf(path, given), given);

/** Changes something. All panels of the page then read their data again. */
export async function change<Path extends keyof paths, How extends Exclude<Method, "get">>(
  how: How,
  path: Path,
  given: Sent = {},
): Promise<Answer<Path, How>> {
  const changed = await send(how, path, given);
  changes.value += 1;
  return changed;
}

/** When the server wants a fresh sign-in first, asks for it, and sends the request again. */
async function twice<Found>(method: string, address: string, given: Sent): Promise<Found> {
  try {
    return await request<Found>(method, address, given);
  } catch (error) {
    if (asProblem(error).code !== "sign_in_again") throw error;
    await new Promise<void>((resolve, reject) => {
      challenge.value = { resolve, reject };
    });
    return request<Found>(method, address, given);
  }
}

async function request<Found>(method: string, address: string, { body, idempotencyKey, signal }: Sent): Promise<Found> {
  const headers = {
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...(idempotencyKey ? { "idempotency-key": idempotencyKey } : {}),
  };
  try {
    const response = await call(address, {
      method,
      headers,
      credentials: "same-origin",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
    return await response.json();
  } catch (error) {
    if (error instanceof Failed && error.problem.status === 401 && me.value) leave(error.problem.message);
    throw error;
  }
}

export async function recognise(): Promise<void> {
  unknown.value = null;
  try {
    me.value = await get("/auth/me");
  } catch (error) {
    const problem = asProblem(error);
    if (problem.status === 401) me.value = null;
    else unknown.value = problem;
  }
}

export type Proof =
  | { key: string }
  | { link: string }
  | { email: string; password: string }
  | { supabase_token: string };

export async function signIn(proof: Proof): Promise<void> {
  me.value = await request<Me>("POST", "auth/sign-in", { body: proof });
  farewell.value = "";
}

export async function signOut(): Promise<void> {
  await request("POST", "auth/sign-out", {});
  leave("You are signed out.");
}

function leave(why: string): void {
  farewell.value = why;
  me.value = null;
}

/** The address of a file that the API makes, for a link: the browser sends the cookie along. */
export const fileOf = (path: keyof paths, query: Query): string => addressOf(path, { query });
