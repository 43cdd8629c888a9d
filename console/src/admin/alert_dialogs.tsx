/** What is done with an alert: somebody looks after it, or it is not told for a time. */
import { notify } from "../parts/basics";
import { FormDialog, Lines, Select, type Values } from "../parts/dialogs";
import { change } from "../parts/session";
import type { Alert } from "./alerts";

interface DialogProps {
  alert: Pick<Alert, "id" | "title" | "rule_id" | "subject" | "subject_name">;
  close: () => void;
}

export function AcknowledgeDialog({ alert, close }: DialogProps) {
  const submit = async (values: Values) => {
    await change("post", "/admin/alerts/{alert_id}/acknowledge", {
      path: { alert_id: alert.id },
      body: { note: values.optional("note") },
    });
    notify("The alert is acknowledged.");
  };
  return (
    <FormDialog title={`Acknowledge: ${alert.title}`} action="Acknowledge" onClose={close} submit={submit}>
      <p class="soft">It shows others that you are looking into the alert. Nothing else changes.</p>
      <Lines label="Note" name="note" maxLength={1000} hint="What was found or done. Optional." />
    </FormDialog>
  );
}

const HOURS: [string, string][] = [
  ["1", "1 hour"],
  ["4", "4 hours"],
  ["24", "1 day"],
  ["168", "7 days"],
];

const later = (hours: number) => new Date(Date.now() + hours * 3_600_000).toISOString();

/** Only this rule, about this subject. */
export function SilenceDialog({ alert, close }: DialogProps) {
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = {
      reason: values.text("reason"),
      rules: [alert.rule_id],
      subjects: [alert.subject],
      ends_at: later(Number(values.text("hours"))),
    };
    await change("post", "/admin/alerts/silences", { body, idempotencyKey });
    notify("The alert is silenced.");
  };
  return (
    <FormDialog title={`Silence: ${alert.title}`} action="Silence" onClose={close} submit={submit}>
      <p class="soft">
        This alert about {alert.subject_name || alert.subject} is not told while the silence lasts. What still fires
        when it ends is told then.
      </p>
      <Select label="For" name="hours" options={HOURS} />
      <Lines label="Reason" name="reason" required maxLength={1000} />
    </FormDialog>
  );
}
