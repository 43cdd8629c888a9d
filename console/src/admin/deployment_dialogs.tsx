/** How a model is offered, and its end. */
import { notify } from "../parts/basics";
import { Check, FinalDialog, FormDialog, Input, type Values } from "../parts/dialogs";
import { go, link } from "../parts/routing";
import { change } from "../parts/session";
import type { Deployment } from "./fleet";
import { PriceFields, pricingOf } from "./spec_fields";

interface DialogProps {
  row: Deployment;
  close: () => void;
}

const at = ({ id }: Deployment) => ({ path: { deployment_id: id } });
const OPTIONAL = ["context_tokens", "most_output", "idle_seconds"];
const NEEDED = ["drain_seconds", "load_seconds", "minimum_stay_seconds", "priority", "weight"];

/** What follows at once, without a start. */
export function OfferDialog({ row, close }: DialogProps) {
  const submit = (values: Values) =>
    change("patch", "/admin/models/{deployment_id}", {
      ...at(row),
      body: {
        name: values.text("name"),
        pricing: pricingOf(values, row.kind, row.pricing),
        hub_token: values.optional("hub_token"),
        ...Object.fromEntries([...OPTIONAL, ...NEEDED].map((name) => [name, values.number(name)])),
      },
    });
  const number = (name: keyof Deployment, label: string, more: Record<string, unknown> = {}) => (
    <Input
      label={label}
      name={name}
      type="number"
      min={0}
      required={NEEDED.includes(name)}
      defaultValue={row[name]?.toString() ?? ""}
      {...more}
    />
  );
  return (
    <FormDialog title={`Price and limits of ${row.name}`} action="Save" onClose={close} submit={submit}>
      <Input label="Name, for operators" name="name" required maxLength={200} defaultValue={row.name} />
      <PriceFields kind={row.kind} pricing={row.pricing} />
      <div class="pair">
        {number("context_tokens", "Tokens of prompt and answer", { min: 1, placeholder: "As the engine tells" })}
        {number("most_output", "Tokens of an answer", { min: 1, placeholder: "No limit" })}
        {number("priority", "Priority", { max: 1000, hint: "Lower numbers come first. OpenRouter has 100." })}
        {number("weight", "Weight", { min: 1, max: 1000, hint: "Among routes of the same priority." })}
        {number("drain_seconds", "Calls may end within (s)")}
        {number("load_seconds", "A call waits for loading (s)", { min: 1, max: 3600 })}
        {number("idle_seconds", "Unloaded after (s) without a call", { min: 10, placeholder: "Never" })}
        {number("minimum_stay_seconds", "Never unloaded before (s)")}
      </div>
      <Input
        label="Token of Hugging Face"
        name="hub_token"
        defaultValue={row.hub_token ?? ""}
        placeholder="None"
        spellcheck={false}
        hint="The name of a token in the vault."
      />
    </FormDialog>
  );
}

export function DeleteDialog({ row, close }: DialogProps) {
  const isHub = row.spec.source.type === "hub";
  const submit = async (values: Values) => {
    const query = { files: values.checked("files") };
    const { note } = await change("delete", "/admin/models/{deployment_id}", { ...at(row), query });
    go(link("deployments"));
    notify(note);
  };
  return (
    <FinalDialog title={`Delete ${row.name}`} action="Delete" name={row.name} onClose={close} submit={submit}>
      <p>Clients cannot call it any more. This cannot be undone. Past requests keep their rows.</p>
      {isHub ? (
        <Check label="Delete the files that the host downloaded for it" name="files" />
      ) : (
        <p class="soft">Its files were not downloaded by Tollgate, and stay on the host.</p>
      )}
    </FinalDialog>
  );
}
