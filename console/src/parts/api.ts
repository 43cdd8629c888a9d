/** Calls of the API. Addresses are relative to the page, so that a path prefix needs no setting. */
import type { paths } from "./openapi";

export type Balance = paths["/user/balance"]["get"]["responses"]["200"]["content"]["application/json"];

export interface Model {
  id: string;
  name?: string;
  description?: string;
  context_length?: number;
  architecture?: { input_modalities?: string[]; output_modalities?: string[] };
  pricing?: Record<string, string>;
  supported_parameters?: string[];
  endpoints?: { path: string }[];
}

/** Why a call failed: the API's refusal, an event of a stream, or a connection that broke. */
export interface Problem {
  status: number;
  code: string;
  message: string;
  /** The field that was refused. */
  param: string | null;
  facts: Record<string, unknown>;
  requestId: string | null;
  /** When the same request may be sent again, in milliseconds since 1970. */
  retryAt: number | null;
}

export class Failed extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }
}

export const base = () => new URL(".", document.baseURI).href.replace(/\/$/, "");

/** Sends a request. Refusals and lost connections are thrown as Failed. */
export async function call(path: string, options: RequestInit): Promise<Response> {
  const response = await fetch(path, { cache: "no-store", ...options }).catch(unreachable);
  if (!response.ok) throw new Failed(await problemOf(response));
  return response;
}

/** A call with an API key, without the cookie of a session. */
export const callWithKey = (path: string, key: string, options: RequestInit = {}): Promise<Response> =>
  call(path, {
    ...options,
    headers: { ...options.headers, authorization: `Bearer ${key}` },
    credentials: "omit",
  });

/** A paid call. With `no-store` the browser would send `Cache-Control: no-cache`, which keeps the completion cache from
 * answering; no browser stores the answer to a POST anyway. */
export const post = (path: string, key: string, body: unknown, more: Record<string, string>, signal: AbortSignal) =>
  callWithKey(path, key, {
    method: "POST",
    headers: { "content-type": "application/json", ...more },
    body: JSON.stringify(body),
    cache: "default",
    signal,
  });

/** With a file. The browser writes the content type of the form. */
export const postForm = (
  path: string,
  key: string,
  body: FormData,
  more: Record<string, string>,
  signal: AbortSignal,
) => callWithKey(path, key, { method: "POST", headers: more, body, signal });

export async function balance(key: string): Promise<Balance> {
  return (await callWithKey("user/balance", key)).json();
}

export async function models(key: string): Promise<Model[]> {
  return (await (await callWithKey("v1/models/user?output_modalities=all", key)).json()).data;
}

/** The charge of a request, in nanos. Null while it is not known. */
export async function charge(key: string, requestId: string): Promise<string | null> {
  const { charge_nanos } = await (await callWithKey(`user/usage/${requestId}`, key)).json();
  return charge_nanos === null ? null : String(charge_nanos);
}

/** An error as it stands in a body or in an event of a stream, in OpenAI's shape or in OpenRouter's. */
export function problem(error: unknown, status: number, requestId: string | null): Problem {
  const { message, code, type, param, metadata, ...facts } = (error ?? {}) as Record<string, unknown>;
  const kind = (metadata as Record<string, unknown> | undefined)?.error_type;
  return {
    status: typeof code === "number" ? code : status,
    code: String(kind ?? (typeof code === "string" ? code : (type ?? "unknown_error"))),
    message: String(message ?? "The server gave no reason."),
    param: typeof param === "string" ? param : null,
    facts,
    requestId,
    retryAt: null,
  };
}

async function problemOf(response: Response): Promise<Problem> {
  const body = await response.json().catch(() => null);
  const found = problem(body?.error, response.status, response.headers.get("x-request-id"));
  return { ...found, retryAt: retryAt(response.headers) };
}

function retryAt(headers: Headers): number | null {
  const milliseconds = Number(headers.get("retry-after-ms") ?? Number(headers.get("retry-after")) * 1000);
  return milliseconds > 0 ? Date.now() + milliseconds : null;
}

/** Any error as a problem to show. What is no refusal of the API is a connection that broke. */
export function asProblem(error: unknown, message = "The connection broke. Try again."): Problem {
  return error instanceof Failed ? error.problem : problem({ code: "connection_failed", message }, 0, null);
}

/** 128 random bits. `crypto.randomUUID` is missing on plain http. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unreachable(cause: unknown): never {
  if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
  throw new Failed(
    problem({ code: "connection_failed", message: "The server could not be reached. Check the connection." }, 0, null),
  );
}
