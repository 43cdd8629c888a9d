/** Dialogs: forms, final decisions, and secrets that are shown once. */
import { signal } from "@preact/signals";
import { type ComponentChildren, createContext, type InputHTMLAttributes, type TextareaHTMLAttributes } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { asProblem, base, newId, type Problem } from "./api";
import { Copy } from "./basics";
import { lasting } from "./numbers";
import { ProblemBox } from "./problems";

export function Dialog({
  title,
  onClose,
  firm = false,
  children,
}: {
  title: string;
  onClose: () => void;
  /** Neither Esc nor a click outside closes it. */
  firm?: boolean;
  children: ComponentChildren;
}) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current?.showModal();
    return () => before instanceof HTMLElement && before.focus();
  }, []);
  const cancel = (event: Event) => {
    event.preventDefault();
    if (!firm) onClose();
  };
  return (
    <dialog
      ref={box}
      aria-label={title}
      closedby={firm ? "none" : "closerequest"}
      onCancel={cancel}
      onClick={(event) => event.target === box.current && cancel(event)}
      onKeyDown={(event) => firm && event.key === "Escape" && event.preventDefault()}
    >
      <div class="inside">
        <h2>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

const Refused = createContext<Problem | null>(null);

/** What a form holds: the text of each named field, without those left empty. */
export class Values {
  constructor(private readonly data: FormData) {}

  text(name: string): string {
    return String(this.data.get(name) ?? "").trim();
  }

  /** With spaces at both ends, as in a password. */
  exact(name: string): string {
    return String(this.data.get(name) ?? "");
  }

  /** Null when empty. */
  optional(name: string): string | null {
    return this.text(name) || null;
  }

  number(name: string): number | null {
    const text = this.text(name);
    return text === "" ? null : Number(text);
  }

  /** One entry a line, or separated by commas. Null when empty. */
  list(name: string): string[] | null {
    const found = this.text(name)
      .split(/[\n,]/)
      .map((one) => one.trim())
      .filter(Boolean);
    return found.length ? found : null;
  }

  all(name: string): string[] {
    return this.data.getAll(name).map(String);
  }

  checked(name: string): boolean {
    return this.data.has(name);
  }
}

type Submit = (values: Values, idempotencyKey: string) => Promise<unknown>;

/** A form that stays open, with what was typed, until the server has accepted it. */
export function Form({
  action,
  submit,
  onCancel,
  danger = false,
  ready = true,
  onInput,
  children,
}: {
  action: string;
  submit: Submit;
  onCancel?: () => void;
  /** What the form holds now: once at the beginning, and after each input. */
  onInput?: (values: Values) => void;
  danger?: boolean;
  ready?: boolean;
  children: ComponentChildren;
}) {
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const [id] = useState(newId);
  const box = useRef<HTMLFormElement>(null);
  const tell = () => box.current && onInput?.(new Values(new FormData(box.current)));
  useEffect(() => void tell(), []);
  const send = async (event: preact.TargetedSubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (busy) return;
    const values = new Values(new FormData(event.currentTarget));
    setBusy(true);
    setProblem(null);
    try {
      await submit(values, id);
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  return (
    <form class="form" ref={box} onInput={tell} onSubmit={send}>
      <Refused.Provider value={problem}>
        {children}
        {problem && (
          <ProblemBox problem={problem}>
            {problem.retryAt && <p>You can try again in {lasting(problem.retryAt - Date.now())}.</p>}
          </ProblemBox>
        )}
      </Refused.Provider>
      <div class="actions">
        {onCancel && (
          <button type="button" onClick={onCancel}>
            Cancel
          </button>
        )}
        <button type="submit" class={danger ? "danger" : "primary"} disabled={busy || !ready}>
          {busy ? "One moment…" : action}
        </button>
      </div>
    </form>
  );
}

export function FormDialog({
  title,
  onClose,
  ...form
}: { title: string; onClose: () => void } & Omit<Parameters<typeof Form>[0], "onCancel">) {
  const submit: Submit = async (values, id) => {
    await form.submit(values, id);
    onClose();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <Form {...form} submit={submit} onCancel={onClose} />
    </Dialog>
  );
}

interface InputProps {
  label: string;
  name: string;
  hint?: ComponentChildren;
  /** The name of the field in the API, if it is another. */
  param?: string;
}

/** A labelled field. It is marked when the server refuses its value. */
export function Input({
  label,
  name,
  hint,
  param = name,
  ...input
}: InputProps & InputHTMLAttributes<HTMLInputElement>) {
  const wrong = useContext(Refused)?.param === param;
  return (
    <label class="field">
      <span>{label}</span>
      <input name={name} aria-invalid={wrong || undefined} autocomplete="off" {...input} />
      {hint && <small>{hint}</small>}
    </label>
  );
}

/** A secret that Tollgate stores. `note`: what else there is to know. */
export const SecretInput = ({
  note = "",
  ...input
}: InputProps & { note?: string; placeholder?: string; required?: boolean; minLength?: number }) => (
  <Input
    type="password"
    required
    minLength={16}
    maxLength={1000}
    spellcheck={false}
    hint={`It is stored encrypted and never shown again. ${note}`}
    {...input}
  />
);

export function Lines({
  label,
  name,
  hint,
  param = name,
  ...area
}: InputProps & TextareaHTMLAttributes<HTMLTextAreaElement>) {
  const wrong = useContext(Refused)?.param === param;
  return (
    <label class="field">
      <span>{label}</span>
      <textarea name={name} rows={2} aria-invalid={wrong || undefined} {...area} />
      {hint && <small>{hint}</small>}
    </label>
  );
}

export function Select({
  label,
  name,
  hint,
  options,
  defaultValue,
}: InputProps & { options: [value: string, label: string][]; defaultValue?: string }) {
  return (
    <label class="field">
      <span>{label}</span>
      <select name={name}>
        {options.map(([value, shown]) => (
          <option key={value} value={value} selected={value === defaultValue}>
            {shown}
          </option>
        ))}
      </select>
      {hint && <small>{hint}</small>}
    </label>
  );
}

export function Check({
  label,
  name,
  hint,
  value,
  defaultChecked = false,
}: InputProps & { value?: string; defaultChecked?: boolean }) {
  return (
    <label class="check">
      <input type="checkbox" name={name} value={value ?? "on"} defaultChecked={defaultChecked} />
      <span>
        {label}
        {hint && <small>{hint}</small>}
      </span>
    </label>
  );
}

/** For what cannot be undone: the person types the name of what is lost. */
export function FinalDialog({
  title,
  action,
  name,
  onClose,
  submit,
  children,
}: {
  title: string;
  action: string;
  name: string;
  onClose: () => void;
  submit: Submit;
  children: ComponentChildren;
}) {
  const [typed, setTyped] = useState("");
  return (
    <FormDialog title={title} action={action} danger ready={typed === name} submit={submit} onClose={onClose}>
      {children}
      <label class="field">
        <span>
          <span>
            Type <b class="exactly">{name}</b> to confirm
          </span>
        </span>
        <input
          value={typed}
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
      </label>
    </FormDialog>
  );
}

interface Secret {
  title: string;
  secret: string;
  hint: string;
  /** A command that uses the secret. */
  command?: string;
}
const revealed = signal<Secret | null>(null);

/** Shows a secret once. Only "I stored it" closes the dialog, and nothing keeps the secret then. */
export function reveal(secret: Secret): void {
  revealed.value = secret;
}

export const revealKey = (title: string, key: string): void =>
  reveal({
    title,
    secret: key,
    hint: "Store it now: it is not shown again. Only its digest is kept.",
    command: `curl ${base()}/user/balance -H "Authorization: Bearer ${key}"`,
  });

export function Revealed() {
  const shown = revealed.value;
  if (!shown) return null;
  const close = () => {
    revealed.value = null;
  };
  return (
    <Dialog title={shown.title} firm onClose={close}>
      <p class="soft">{shown.hint}</p>
      <Secret text={shown.secret} label="Secret" />
      {shown.command && (
        <>
          <p class="soft small">Try it:</p>
          <Secret text={shown.command} label="Command" />
        </>
      )}
      <div class="actions">
        <button type="button" class="primary" onClick={close}>
          I stored it
        </button>
      </div>
    </Dialog>
  );
}

export const Secret = ({ text, label }: { text: string; label: string }) => (
  <div class="secret">
    <code>{text}</code>
    <Copy label={label} text={() => text} />
  </div>
);
