/** The rules: when an alert fires, what each reads at the moment, and what to do. */
import { useState } from "preact/hooks";
import { AddButton, type MayBeFirst, notify } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { FinalDialog, FormDialog, Input, Lines, Select, type Values } from "../parts/dialogs";
import { codes, Facts } from "../parts/figures";
import { Choice } from "../parts/filters";
import { Count, lasting, Status } from "../parts/numbers";
import { go, link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List, Table } from "../parts/table";
import { bound, Prose, Subject, written } from "./readings";
import { SEVERITIES } from "./severities";

type Rule = Answer<"/admin/alerts/rules/{rule_id}", "get">;
type Settings = NonNullable<Rule["at_start"]>;

const STATES: [string, string][] = [
  ["active", "On"],
  ["disabled", "Off"],
];
const at = ({ id }: { id: string }) => ({ path: { rule_id: id } });

/** All: there are few, and no installation needs a hundred of its own. */
const useRules = (query: Record<string, string | undefined> = {}) =>
  useData("/admin/alerts/rules", { query: { ...query, limit: 200 } }, 60);

const graveness = ({ severity }: Rule) => SEVERITIES.findIndex(([one]) => one === severity);

/** The most severe first. */
const inOrder = (loaded: ReturnType<typeof useRules>): ReturnType<typeof useRules> => ({
  ...loaded,
  data: loaded.data && {
    ...loaded.data,
    data: loaded.data.data.toSorted((a, b) => graveness(a) - graveness(b) || a.title.localeCompare(b.title)),
  },
});

export function Rules() {
  const { severity, state, signal, cursor, open } = route.value.filters;
  const loaded = inOrder(useRules({ severity, state, signal, cursor }));
  return (
    <>
      <div class="filters">
        <Choice name="severity" label="Severity" options={SEVERITIES} />
        <Choice name="state" label="State" options={STATES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Rules"
          nothing={
            <>
              <p>There is no rule, so no alert fires.</p>
              <AddRule first="Add the first rule" />
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Rule", of: (rule) => <span class="prose">{rule.title}</span> },
            { name: "Severity", of: (rule) => <Status of={rule.severity} /> },
            { name: "Fires at", of: (rule) => <FiresAt rule={rule} />, wide: true },
            { name: "Current value", of: (rule) => <ReadsNow rule={rule} />, wide: true },
            { name: "Firing", of: (rule) => <Count of={rule.firing} />, number: true },
            { name: "State", of: (rule) => <OnOff rule={rule} /> },
          ]}
        />
      </Panel>
      {open && <OneRule key={open} id={open} />}
    </>
  );
}

const FiresAt = ({ rule }: { rule: Rule }) => (
  <span class="stacked">
    <span>{bound(rule)}</span>
    <span class="soft small">{rule.for_seconds ? `for ${lasting(rule.for_seconds * 1000)}` : "at once"}</span>
  </span>
);

function ReadsNow({ rule: { signal, readings } }: { rule: Rule }) {
  if (readings.value === null) return <span class="soft">no reading</span>;
  const more = readings.count > 1 ? `the nearest of ${readings.count}` : "";
  return (
    <span class="stacked">
      <span>{written(signal, readings.value)}</span>
      {more && <span class="soft small">{more}</span>}
    </span>
  );
}

const OnOff = ({ rule }: { rule: Rule }) => (
  <span class="stacked">
    <span class={`status ${rule.state === "active" ? "good" : "warn"}`}>{rule.state === "active" ? "on" : "off"}</span>
    {sinceStart(rule).length > 0 && <span class="soft small">changed</span>}
  </span>
);

const NAMES: [keyof Settings, string][] = [
  ["threshold", "Threshold"],
  ["clear_threshold", "Clears beyond"],
  ["for_seconds", "Fires after"],
  ["clear_seconds", "Resolved after"],
  ["severity", "Severity"],
];
type Difference = [name: string, now: string, other: string];

function shown(signal: string, name: keyof Settings, value: Settings[keyof Settings]): string {
  if (value === null) return "the threshold";
  if (typeof value === "string") return value;
  if (name.endsWith("_seconds")) return value ? lasting(value * 1000) : "at once";
  return written(signal, value);
}

/** What another version would change. */
function differences(rule: Rule, other: Settings | null): Difference[] {
  if (!other) return [];
  const show = (name: keyof Settings, of: Settings) => shown(rule.signal, name, of[name]);
  return NAMES.filter(([name]) => rule[name] !== other[name]).map(([name, label]) => [
    label,
    show(name, rule),
    show(name, other),
  ]);
}

/** What is not as it was from the start: on, and about all subjects. */
const sinceStart = (rule: Rule): Difference[] =>
  rule.at_start
    ? [
        ...differences(rule, rule.at_start),
        ...(rule.subjects ? [["Subjects", rule.subjects.join(", "), "all subjects"] as Difference] : []),
        ...(rule.state === "disabled" ? [["State", "off", "on"] as Difference] : []),
      ]
    : [];

const Differences = ({ caption, of, to }: { caption: string; of: Difference[]; to: string }) => (
  <Table
    caption={caption}
    rows={of}
    keyOf={([name]) => name}
    columns={[
      { name: "Setting", of: ([name]) => name },
      { name: "Now", of: ([, now]) => now },
      { name: to, of: ([, , other]) => <b>{other}</b> },
    ]}
  />
);

type Asked = "edit" | "reset" | "delete" | null;

function OneRule({ id }: { id: string }) {
  const loaded = useData("/admin/alerts/rules/{rule_id}", at({ id }));
  return (
    <EntrySide loaded={loaded} kind="Rule" title={({ title }) => title}>
      {(rule) => <WholeRule rule={rule} />}
    </EntrySide>
  );
}

async function turn(rule: Rule, state: Rule["state"]): Promise<void> {
  await change("patch", "/admin/alerts/rules/{rule_id}", { ...at(rule), body: { state } });
  notify(state === "active" ? "The rule is on." : "The rule is off. Its alerts are resolved.", () => {
    void turn(rule, rule.state);
  });
}

function WholeRule({ rule }: { rule: Rule }) {
  const [asked, ask] = useState<Asked>(null);
  const close = () => ask(null);
  return (
    <>
      <div class="actions start">
        <button type="button" onClick={() => ask("edit")}>
          Edit
        </button>
        <button type="button" onClick={() => void turn(rule, rule.state === "active" ? "disabled" : "active")}>
          {rule.state === "active" ? "Switch off" : "Switch on"}
        </button>
        {sinceStart(rule).length > 0 && (
          <button type="button" onClick={() => ask("reset")}>
            Reset
          </button>
        )}
        {!rule.built_in && (
          <button type="button" class="danger" onClick={() => ask("delete")}>
            Delete
          </button>
        )}
      </div>
      {rule.description && <p>{rule.description}</p>}
      <Facts facts={factsOf(rule)} />
      {rule.readings.value === null && rule.state === "active" && (
        <div class="notice" role="status">
          <strong>It has no reading, so it cannot fire</strong>
          <p>
            <Prose text={rule.signal_means} />
          </p>
        </div>
      )}
      {rule.advice && (
        <>
          <h3>What to do</h3>
          <AdviceOf advice={rule.advice} />
        </>
      )}
      {asked === "edit" && <EditDialog rule={rule} close={close} />}
      {asked === "reset" && <ResetDialog rule={rule} close={close} />}
      {asked === "delete" && <DeleteDialog rule={rule} close={close} />}
    </>
  );
}

type Fact = [string, preact.ComponentChildren];

function factsOf(rule: Rule): Fact[] {
  const clears = shown(rule.signal, "clear_threshold", rule.clear_threshold);
  return [
    ["Id", <code key="id">{rule.id}</code>],
    ["Severity", <Status key="severity" of={rule.severity} />],
    ["Signal", <code key="signal">{rule.signal}</code>],
    ["Measures", <Prose key="means" text={rule.signal_means} />],
    ["Fires at", `${bound(rule)}, ${rule.for_seconds ? `for ${lasting(rule.for_seconds * 1000)}` : "at once"}`],
    ["Clears at", clears],
    ["Resolved", rule.clear_seconds ? `after ${lasting(rule.clear_seconds * 1000)}` : "at once"],
    ["Subjects", codes(rule.subjects, "all subjects")],
    ...(rule.readings.value === null ? [] : [["Current value", <Reading key="reading" rule={rule} />] as Fact]),
    ["Firing", <Count key="firing" of={rule.firing} />],
    [
      "History",
      <a key="history" class="text" href={link("alerts", { tab: "history", rule_id: rule.id })}>
        its alerts of 7 days
      </a>,
    ],
  ];
}

const Reading = ({ rule: { signal, readings } }: { rule: Rule }) => (
  <>
    {written(signal, readings.value ?? 0)} of{" "}
    <Subject of={{ signal, subject: readings.subject ?? "installation", subject_name: null }} />
    {readings.count > 1 && `, the nearest to the threshold of ${readings.count}`}
  </>
);

export const AdviceOf = ({ advice }: { advice: NonNullable<Rule["advice"]> }) => (
  <Facts
    facts={[
      ["Meaning", <Prose key="means" text={advice.means} />],
      ["Look", <Prose key="look" text={advice.look} />],
      ["Cause", <Prose key="cause" text={advice.cause} />],
      ["Mend", <Prose key="mend" text={advice.mend} />],
    ]}
  />
);

function Fields({ rule }: { rule?: Rule }) {
  const seconds = { type: "number", min: 0, max: 604_800, required: true } as const;
  return (
    <>
      <div class="pair">
        <Input
          label="Threshold"
          name="threshold"
          type="number"
          step="any"
          required
          defaultValue={rule?.threshold.toString() ?? ""}
          hint={rule ? `${rule.threshold} is ${written(rule.signal, rule.threshold)}.` : "In the unit of the signal."}
        />
        <Input
          label="Clears at"
          name="clear_threshold"
          type="number"
          step="any"
          placeholder="The threshold"
          defaultValue={rule?.clear_threshold?.toString() ?? ""}
        />
        <Input label="Fires after (seconds)" name="for_seconds" {...seconds} defaultValue={rule?.for_seconds ?? 0} />
        <Input
          label="Resolved after (seconds)"
          name="clear_seconds"
          {...seconds}
          defaultValue={rule?.clear_seconds ?? 0}
        />
      </div>
      <Select label="Severity" name="severity" options={SEVERITIES} defaultValue={rule?.severity ?? "warning"} />
      <Lines
        label="Subjects"
        name="subjects"
        placeholder="All subjects"
        hint="Ids of upstreams, orgs, keys, hosts … One a line."
        spellcheck={false}
        defaultValue={rule?.subjects?.join("\n") ?? ""}
      />
      <Input label="Description" name="description" maxLength={500} defaultValue={rule?.description ?? ""} />
    </>
  );
}

const settingsOf = (values: Values): Settings => ({
  threshold: values.number("threshold") ?? 0,
  clear_threshold: values.number("clear_threshold"),
  for_seconds: values.number("for_seconds") ?? 0,
  clear_seconds: values.number("clear_seconds") ?? 0,
  severity: values.text("severity") as Settings["severity"],
});
const bodyOf = (values: Values) => ({
  ...settingsOf(values),
  subjects: values.list("subjects"),
  description: values.text("description"),
});

interface DialogProps {
  rule: Rule;
  close: () => void;
}

function EditDialog({ rule, close }: DialogProps) {
  const [wanted, setWanted] = useState<Settings | null>(null);
  const changed = differences(rule, wanted);
  const submit = (values: Values) =>
    change("patch", "/admin/alerts/rules/{rule_id}", { ...at(rule), body: bodyOf(values) });
  return (
    <FormDialog
      title={`Edit: ${rule.title}`}
      action="Save"
      onClose={close}
      submit={submit}
      onInput={(values) => setWanted(settingsOf(values))}
    >
      <p class="soft">
        {rule.signal}: <Prose text={rule.signal_means} />
      </p>
      <Fields rule={rule} />
      {changed.length > 0 && <Differences caption="What changes" of={changed} to="Then" />}
    </FormDialog>
  );
}

function ResetDialog({ rule, close }: DialogProps) {
  const submit = async () => {
    await change("post", "/admin/alerts/rules/{rule_id}/reset", at(rule));
    notify("The rule is as it was from the start.");
  };
  return (
    <FormDialog title={`Reset: ${rule.title}`} action="Reset" onClose={close} submit={submit}>
      <Differences caption="What changes" of={sinceStart(rule)} to="From the start" />
    </FormDialog>
  );
}

function DeleteDialog({ rule, close }: DialogProps) {
  const submit = async () => {
    await change("delete", "/admin/alerts/rules/{rule_id}", at(rule));
    go(withFilters({ open: "" }));
  };
  return (
    <FinalDialog title={`Delete ${rule.id}`} action="Delete" name={rule.id} onClose={close} submit={submit}>
      <p>Its alerts go with it, also from the history.</p>
    </FinalDialog>
  );
}

const COMPARISONS: [string, string][] = [
  ["at_least", "is at least the threshold"],
  ["below", "is below the threshold"],
];

export function AddRule({ first }: MayBeFirst) {
  const [asked, ask] = useState(false);
  return (
    <>
      <AddButton label="Add a rule" first={first} onClick={() => ask(true)} />
      {asked && <AddDialog close={() => ask(false)} />}
    </>
  );
}

function AddDialog({ close }: { close: () => void }) {
  const loaded = useRules();
  const means = new Map(
    loaded.data?.data.map(({ signal, signal_means }): [string, string] => [signal, signal_means]).sort(),
  );
  const [signal, setSignal] = useState("");
  const submit = async (values: Values) => {
    const body = {
      id: values.text("id"),
      signal: values.text("signal"),
      comparison: values.text("comparison"),
      ...bodyOf(values),
    };
    const made = await change("post", "/admin/alerts/rules", { body });
    go(withFilters({ open: made.id }));
  };
  return (
    <FormDialog
      title="Add a rule"
      action="Add"
      ready={means.size > 0}
      onClose={close}
      submit={submit}
      onInput={(values) => setSignal(values.text("signal"))}
    >
      <Input
        label="Id"
        name="id"
        required
        pattern="[a-z][a-z0-9_\-]{0,62}"
        placeholder="error_rate_of_gpu"
        hint="Small letters, digits, - and _. It cannot be changed."
      />
      <Select
        key={means.size}
        label="Signal"
        name="signal"
        options={[...means.keys()].map((one) => [one, one])}
        hint={<Prose text={means.get(signal) ?? [...means.values()][0] ?? ""} />}
      />
      <Select label="It fires when a reading" name="comparison" options={COMPARISONS} />
      <Fields />
    </FormDialog>
  );
}
