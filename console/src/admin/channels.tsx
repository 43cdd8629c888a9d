/** The channels of operators: where alerts are told. */
import { useState } from "preact/hooks";
import { AddButton, type MayBeFirst, notify } from "../parts/basics";
import { type Asked, ChannelActions, ChannelState, Failing, newSecret, saved, TestButton } from "../parts/channels";
import { Panel, useData } from "../parts/data";
import { FinalDialog, FormDialog, Input, Lines, SecretInput, Select, type Values } from "../parts/dialogs";
import { codes, Facts } from "../parts/figures";
import { Choice } from "../parts/filters";
import { Status } from "../parts/numbers";
import { go, link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";

export type Channel = Answer<"/admin/alerts/channels", "get">["data"][number];
type Kind = Channel["kind"];

const KINDS: [Kind, string][] = [
  ["webhook", "Webhook"],
  ["slack", "Slack"],
  ["pagerduty", "PagerDuty"],
  ["email", "Email"],
];
const STATES: [string, string][] = [
  ["active", "Active"],
  ["disabled", "Disabled"],
];
const LEAST: [string, string][] = [
  ["info", "All"],
  ["warning", "Warning and critical"],
  ["critical", "Critical only"],
];
const kindName = (kind: Kind) => KINDS.find(([one]) => one === kind)?.[1] ?? kind;
const at = ({ id }: { id: string }) => ({ path: { channel_id: id } });

/** All of them: there are 20 at most. Empty until they are loaded. */
export const useChannels = (): Channel[] =>
  useData("/admin/alerts/channels", { query: { limit: 100 } }).data?.data ?? [];

export function Channels() {
  const { kind, state, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/alerts/channels", { query: { kind, state, sort, cursor, limit: 50 } }, 60);
  return (
    <>
      <div class="filters">
        <Choice name="kind" label="Kind" options={KINDS} />
        <Choice name="state" label="State" options={STATES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Channels"
          nothing={
            <>
              <p>There is no channel, so nobody is told of alerts. They show here all the same.</p>
              <AddChannel first="Add the first channel" />
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => withFilters({ open: id })}
          open={({ id }) => id === open}
          columns={[
            { name: "Name", of: (one) => <span class="cut">{one.name}</span> },
            { name: "Kind", of: (one) => kindName(one.kind) },
            { name: "Address", of: (one) => <code class="cut">{one.url}</code>, wide: true },
            { name: "Notified of", of: (one) => <IsTold channel={one} />, wide: true },
            { name: "State", of: (one) => <ChannelState of={one} /> },
            { name: "Last sent", of: (one) => <When at={one.told_at} />, wide: true },
          ]}
        />
      </Panel>
      {open && <OneChannel key={open} id={open} />}
    </>
  );
}

const IsTold = ({ channel: { severity, rules, org_ids } }: { channel: Channel }) => (
  <span class="stacked">
    <span>{severity === "info" ? "all severities" : severity === "warning" ? "warning, critical" : "critical"}</span>
    {(rules || org_ids) && (
      <span class="soft small">
        {[rules && `${rules.length} rules`, org_ids && `${org_ids.length} orgs`].filter(Boolean).join(", ")}
      </span>
    )}
  </span>
);

function OneChannel({ id }: { id: string }) {
  const loaded = useData("/admin/alerts/channels/{channel_id}", at({ id }));
  return (
    <EntrySide loaded={loaded} kind="Channel" title={({ name }) => name}>
      {(channel) => <WholeChannel channel={channel} />}
    </EntrySide>
  );
}

async function turn(channel: Channel, state: Channel["state"]): Promise<void> {
  await change("patch", "/admin/alerts/channels/{channel_id}", { ...at(channel), body: { state } });
  notify(`The channel is ${state}.`, () => void turn(channel, channel.state));
}

function WholeChannel({ channel }: { channel: Channel }) {
  const [asked, ask] = useState<Asked>(null);
  const close = () => ask(null);
  return (
    <>
      <ChannelActions
        of={channel}
        hasSecret={channel.kind !== "slack"}
        ask={ask}
        turn={(state) => turn(channel, state)}
      />
      <Failing of={channel} />
      <TestButton test={() => change("post", "/admin/alerts/channels/{channel_id}/test", at(channel))} />
      <Facts facts={factsOf(channel)} />
      {asked === "edit" && <EditDialog channel={channel} close={close} />}
      {asked === "secret" && <SecretDialog channel={channel} close={close} />}
      {asked === "delete" && <DeleteDialog channel={channel} close={close} />}
    </>
  );
}

type Fact = [string, preact.ComponentChildren];

function factsOf(channel: Channel): Fact[] {
  const { mail } = channel;
  return [
    ["Kind", kindName(channel.kind)],
    ["Address", <code key="url">{channel.url}</code>],
    ...(mail
      ? ([
          ["From", mail.sender],
          ["To", mail.recipients.join(", ")],
          ["TLS", mail.tls],
          ["User name", mail.username ?? "none"],
        ] as Fact[])
      : []),
    ["Secret", channel.last_four ? <code key="secret">…{channel.last_four}</code> : "none"],
    ["State", <ChannelState key="state" of={channel} />],
    ["Least severity", <Status key="severity" of={channel.severity} />],
    ["Rules", codes(channel.rules, "all")],
    ["Orgs", codes(channel.org_ids, "all")],
    ["Last sent", <When key="told" at={channel.told_at} seconds />],
    ["Failed last", <When key="failed" at={channel.failed_at} seconds />],
    ["Created", <When key="created" at={channel.created_at} />],
    [
      "Deliveries",
      <a key="deliveries" class="text" href={link("alerts", { tab: "deliveries", channel_id: channel.id })}>
        what it was told
      </a>,
    ],
  ];
}

interface DialogProps {
  channel: Channel;
  close: () => void;
}

function EditDialog({ channel, close }: DialogProps) {
  const submit = async (values: Values) => {
    const body = { ...commonOf(values), ...addressOf(channel.kind, values, channel) };
    const done = await change("patch", "/admin/alerts/channels/{channel_id}", { ...at(channel), body });
    saved(done.name, done.secret, "The channel is changed.");
  };
  return (
    <FormDialog title={`Edit ${channel.name}`} action="Save" onClose={close} submit={submit}>
      <AddressFields kind={channel.kind} channel={channel} />
      <CommonFields channel={channel} />
    </FormDialog>
  );
}

function SecretDialog({ channel, close }: DialogProps) {
  const isWebhook = channel.kind === "webhook";
  const submit = async (values: Values) => {
    const secret = isWebhook ? newSecret() : values.text("secret");
    await change("patch", "/admin/alerts/channels/{channel_id}", { ...at(channel), body: { secret } });
    saved(channel.name, isWebhook ? secret : null, "The secret is stored.");
  };
  return (
    <FormDialog title={`New secret of ${channel.name}`} action="Replace" onClose={close} submit={submit}>
      {isWebhook ? (
        <p>From now on messages are signed with the new secret alone. It is shown once.</p>
      ) : (
        <SecretInput
          label={channel.kind === "email" ? "Password" : "Integration key"}
          name="secret"
          minLength={8}
          note="It replaces the one that is there."
        />
      )}
    </FormDialog>
  );
}

function DeleteDialog({ channel, close }: DialogProps) {
  const submit = async () => {
    await change("delete", "/admin/alerts/channels/{channel_id}", at(channel));
    go(withFilters({ open: "" }));
  };
  return (
    <FinalDialog title={`Delete ${channel.name}`} action="Delete" name={channel.name} onClose={close} submit={submit}>
      <p>Its secret and the record of its deliveries are lost. Nothing more is told over it.</p>
    </FinalDialog>
  );
}

export function AddChannel({ first }: MayBeFirst) {
  const [asked, ask] = useState(false);
  return (
    <>
      <AddButton label="Add a channel" first={first} onClick={() => ask(true)} />
      {asked && <AddDialog close={() => ask(false)} />}
    </>
  );
}

function AddDialog({ close }: { close: () => void }) {
  const [kind, setKind] = useState<Kind>("webhook");
  const submit = async (values: Values, idempotencyKey: string) => {
    const body = { kind, ...commonOf(values), ...addressOf(kind, values) };
    const made = await change("post", "/admin/alerts/channels", { body, idempotencyKey });
    go(withFilters({ open: made.id }));
    saved(made.name, made.secret, "The channel is added. Send a test over it.");
  };
  return (
    <FormDialog
      title="Add a channel"
      action="Add"
      onClose={close}
      submit={submit}
      onInput={(values) => setKind(values.text("kind") as Kind)}
    >
      <Select label="Kind" name="kind" options={KINDS} />
      <AddressFields key={kind} kind={kind} />
      <CommonFields />
    </FormDialog>
  );
}

const CommonFields = ({ channel }: { channel?: Channel }) => (
  <>
    <Input label="Name" name="name" required maxLength={200} placeholder="on-call" defaultValue={channel?.name ?? ""} />
    <Select label="Notified of" name="severity" options={LEAST} defaultValue={channel?.severity ?? "info"} />
    <Lines
      label="Only these rules"
      name="rules"
      placeholder="All"
      hint="Ids such as upstream_down, one a line."
      spellcheck={false}
      defaultValue={channel?.rules?.join("\n") ?? ""}
    />
    <Lines
      label="Orgs"
      name="org_ids"
      placeholder="All"
      hint="Ids, one a line."
      spellcheck={false}
      defaultValue={channel?.org_ids?.join("\n") ?? ""}
    />
  </>
);

const commonOf = (values: Values) => ({
  name: values.text("name"),
  severity: values.text("severity"),
  rules: values.list("rules"),
  org_ids: values.list("org_ids"),
});

/** Where it is told. What a channel has stays, where a field is left empty. */
function AddressFields({ kind, channel }: { kind: Kind; channel?: Channel }) {
  if (kind === "email") return <MailFields mail={channel?.mail ?? null} hasSecret={Boolean(channel?.last_four)} />;
  if (kind === "pagerduty") {
    return channel ? null : <SecretInput label="Integration key of Events API v2" name="secret" minLength={8} />;
  }
  const isSlack = kind === "slack";
  return (
    <Input
      label={isSlack ? "URL of an incoming webhook" : "URL"}
      name="url"
      type="url"
      required={!channel}
      placeholder={isSlack && channel ? "As it is" : "https://"}
      defaultValue={isSlack ? "" : (channel?.url ?? "")}
      hint={isSlack ? "It is a secret, and is not shown again." : channel && "Another URL gets another secret."}
    />
  );
}

const TLS: [string, string][] = [
  ["starttls", "STARTTLS"],
  ["tls", "From the start"],
  ["none", "None"],
];

function MailFields({ mail, hasSecret }: { mail: Channel["mail"]; hasSecret: boolean }) {
  return (
    <>
      <div class="pair">
        <Input
          label="Mail server"
          name="host"
          param="mail.host"
          required
          maxLength={253}
          placeholder="smtp.example.com"
          defaultValue={mail?.host ?? ""}
        />
        <Input
          label="Port"
          name="port"
          param="mail.port"
          type="number"
          min={1}
          max={65_535}
          placeholder="As usual for TLS"
          defaultValue={mail?.port ?? ""}
        />
        <Select label="TLS" name="tls" options={TLS} defaultValue={mail?.tls ?? "starttls"} />
        <Input
          label="User name"
          name="username"
          param="mail.username"
          maxLength={320}
          placeholder="None"
          defaultValue={mail?.username ?? ""}
        />
      </div>
      <SecretInput
        label="Password"
        name="secret"
        required={false}
        minLength={8}
        placeholder={hasSecret ? "As it is" : "None"}
      />
      <Input
        label="From"
        name="sender"
        param="mail.sender"
        type="email"
        required
        maxLength={320}
        defaultValue={mail?.sender ?? ""}
      />
      <Lines
        label="To"
        name="recipients"
        param="mail.recipients"
        required
        hint="Up to 20 addresses, one a line."
        defaultValue={mail?.recipients.join("\n") ?? ""}
      />
    </>
  );
}

const mailOf = (values: Values) => ({
  host: values.text("host"),
  port: values.number("port"),
  tls: values.text("tls"),
  username: values.optional("username"),
  sender: values.text("sender"),
  recipients: values.list("recipients") ?? [],
});

function addressOf(kind: Kind, values: Values, was?: Channel): Record<string, unknown> {
  const secret = values.exact("secret");
  const url = values.text("url");
  return {
    ...(kind === "email" ? { mail: mailOf(values) } : {}),
    ...(url && url !== was?.url ? { url } : {}),
    ...(secret ? { secret } : {}),
  };
}
