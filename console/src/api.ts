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
}

/** Why a call failed: the API's refusal, an event of a stream, or a connection that broke. */
export interface Problem {
  status: number;
  code: string;
  message: string;
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

export async function call(path: string, key: string, options: RequestInit = {}): Promise<Response> {
  const headers = { ...options.headers, authorization: `Bearer ${key}` };
  const response = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" }).catch(
    unreachable,
  );
  if (!response.ok) throw new Failed(await problemOf(response));
  return response;
}

export const post = (path: string, key: string, body: unknown, more: Record<string, string>, signal: AbortSignal) =>
  call(path, key, {
    method: "POST",
    headers: { "content-type": "application/json", ...more },
    body: JSON.stringify(body),
    signal,
  });

export async function balance(key: string): Promise<Balance> {
  return (await call("user/balance", key)).json();
}

export async function models(key: string): Promise<Model[]> {
  return (await (await call("v1/models", key)).json()).data;
}

/** An error as it stands in a body or in an event of a stream, in OpenAI's shape or in OpenRouter's. */
export function problem(error: unknown, status: number, requestId: string | null): Problem {
  const { message, code, type, param, metadata, ...facts } = (error ?? {}) as Record<string, unknown>;
  const kind = (metadata as Record<string, unknown> | undefined)?.error_type;
  return {
    status: typeof code === "number" ? code : status,
    code: String(kind ?? (typeof code === "string" ? code : (type ?? "unknown_error"))),
    message: String(message ?? "The server gave no reason."),
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

function unreachable(cause: unknown): never {
  if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
  throw new Failed(
    problem({ code: "connection_failed", message: "The server could not be reached. Check the connection." }, 0, null),
  );
}
