/** What went wrong and what it means. */
import type { ComponentChildren } from "preact";
import type { Problem } from "./api";
import { Money } from "./basics";

const TITLES: Record<string, string> = {
  insufficient_credits: "Not enough credits",
  key_budget_exhausted: "The budget of this key is spent",
  quota_exhausted: "The quota of this key is used up",
  rate_limit_exceeded: "Too many requests for the moment",
  too_many_in_flight: "Too many requests are running",
  invalid_api_key: "This key is not valid",
  model_not_found: "There is no such model",
  connection_failed: "The connection failed",
  server_busy: "The server is busy",
  too_many_sign_ins: "Too many wrong tries",
  too_many_tests: "Tested too often",
};

/** A request that is larger than a limit by itself. Waiting does not help. */
export const neverFits = ({ code, retryAt }: Pick<Problem, "code" | "retryAt">) =>
  code === "rate_limit_exceeded" && !retryAt;

function titleOf({ code, status, retryAt }: Problem): string {
  if (neverFits({ code, retryAt })) return "The request is too large for a limit";
  const byStatus = status >= 500 ? "The model's server failed" : "The request was refused";
  return TITLES[code] ?? (status === 200 ? "The answer broke off" : byStatus);
}

export function ProblemBox({
  problem,
  midway = false,
  title = midway ? "The answer broke off" : titleOf(problem),
  children,
}: {
  problem: Problem;
  midway?: boolean;
  title?: string;
  children?: ComponentChildren;
}) {
  return (
    <div class="problem" role="alert">
      <strong>{title}</strong>
      <p>{problem.message}</p>
      <Amounts facts={problem.facts} />
      {children}
      <p class="soft">
        <code>{problem.code}</code>
        {problem.status > 0 && <span>HTTP {problem.status}</span>}
        {problem.requestId && <code>{problem.requestId}</code>}
      </p>
    </div>
  );
}

function Amounts({ facts }: { facts: Record<string, unknown> }) {
  const { required_nanos: required, available_nanos, left_nanos } = facts;
  const left = available_nanos ?? left_nanos;
  if (typeof required !== "number" || typeof left !== "number") return null;
  return (
    <dl class="figures">
      <dt>May cost</dt>
      <dd>
        <Money nanos={BigInt(required)} />
      </dd>
      <dt>Available</dt>
      <dd>
        <Money nanos={BigInt(left)} />
      </dd>
    </dl>
  );
}
