/** What may be done about a failed answer. */
import { useEffect, useState } from "preact/hooks";
import type { Problem } from "../parts/api";
import { neverFits } from "../parts/problems";
import { again } from "./state";

export function Remedies({ problem }: { problem: Problem }) {
  const affordable = Number(problem.facts.affordable_output_tokens ?? 0);
  if (affordable > 0) {
    return (
      <button type="button" onClick={() => again({ max_tokens: String(affordable) })}>
        Send with at most {affordable} tokens
      </button>
    );
  }
  if (neverFits(problem)) return null;
  return problem.retryAt ? <Countdown until={problem.retryAt} /> : <Retry />;
}

const Retry = ({ seconds = 0 }: { seconds?: number }) => (
  <button type="button" disabled={seconds > 0} onClick={() => again()}>
    {seconds > 0 ? `Try again in ${seconds} s` : "Try again"}
  </button>
);

function Countdown({ until }: { until: number }) {
  const [now, tick] = useState(Date.now());
  const seconds = Math.max(0, Math.ceil((until - now) / 1000));
  useEffect(() => {
    if (seconds === 0) return;
    const timer = setTimeout(() => tick(Date.now()), 250);
    return () => clearTimeout(timer);
  }, [seconds, now]);
  return <Retry seconds={seconds} />;
}
