/** Fields that take the id of an org, a user or a model, and suggest those whose name matches what is typed. */
import { useId, useState } from "preact/hooks";
import { useData } from "../parts/data";
import { Input } from "../parts/dialogs";
import { go, route, withFilters } from "../parts/routing";

interface Choice {
  id: string;
  shown: string;
}

function useOrgs(q: string): Choice[] {
  const { data } = useData("/admin/orgs/lookup", { query: { q, limit: 20 } });
  return data?.data.map(({ id, name }) => ({ id, shown: name })) ?? [];
}

function useUsers(q: string): Choice[] {
  const { data } = useData("/admin/users/lookup", { query: { q, limit: 20 } });
  return data?.data.map(({ id, email }) => ({ id, shown: email })) ?? [];
}

export function useModels(q: string): Choice[] {
  const { data } = useData("/admin/catalog", { query: { q, limit: 20 } });
  return data?.data.map(({ id, name }) => ({ id, shown: name })) ?? [];
}

export function Suggestions({ id, choices }: { id: string; choices: Choice[] }) {
  return (
    <datalist id={id}>
      {choices.map((choice) => (
        <option key={choice.id} value={choice.id}>
          {choice.shown}
        </option>
      ))}
    </datalist>
  );
}

interface IdInputProps {
  label: string;
  name: string;
  hint?: string;
  defaultValue?: string;
  required?: boolean;
  placeholder?: string;
  useChoices: (q: string) => Choice[];
}

function IdInput({ useChoices, hint, defaultValue = "", ...input }: IdInputProps) {
  const [typed, setTyped] = useState(defaultValue);
  const choices = useChoices(typed);
  const list = useId();
  const chosen = choices.find(({ id }) => id === typed);
  return (
    <>
      <Input
        {...input}
        list={list}
        defaultValue={defaultValue}
        hint={chosen?.shown || hint}
        onInput={(event) => setTyped(event.currentTarget.value.trim())}
      />
      <Suggestions id={list} choices={choices} />
    </>
  );
}

type Given = Pick<IdInputProps, "defaultValue" | "required" | "placeholder">;
type ModelInputProps = Omit<IdInputProps, "useChoices">;

export const OrgInput = (given: Given) => (
  <IdInput label="Org" name="org_id" hint="Type a part of its name, and choose." useChoices={useOrgs} {...given} />
);

export const UserInput = (given: Given) => (
  <IdInput label="User" name="user_id" hint="Type a part of the email, and choose." useChoices={useUsers} {...given} />
);

export const ModelInput = (given: ModelInputProps) => <IdInput useChoices={useModels} {...given} />;

/** Limits a list to one org. */
export function OrgFilter() {
  const kept = route.value.filters.org_id ?? "";
  const [typed, setTyped] = useState(kept);
  const choices = useOrgs(typed);
  const list = useId();
  return (
    <label class="choice">
      <span>Org</span>
      <input
        key={kept}
        class="compact"
        list={list}
        placeholder="All"
        autocomplete="off"
        defaultValue={kept}
        onInput={(event) => setTyped(event.currentTarget.value.trim())}
        onChange={(event) => go(withFilters({ org_id: event.currentTarget.value.trim() }))}
      />
      <Suggestions id={list} choices={choices} />
    </label>
  );
}
