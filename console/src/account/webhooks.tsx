/** Where the org is told of its own events. */
import { useState } from "preact/hooks";
import { AddButton, type MayBeFirst, notify } from "../parts/basics";
import { type Asked, ChannelActions, ChannelState, Failing, newSecret, saved, TestButton } from "../parts/channels";
import { Panel, useData } from "../parts/data";
import { Deliveries } from "../parts/deliveries";
import { Check, FinalDialog, FormDialog, Input, type Values } from "../parts/dialogs";
import { codes, Facts } from "../parts/figures";
import { Heading } from "../parts/frame";
import { go, link, route, withFilters } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List } from "../parts/table";
import { FilterTabs, type Tab } from "../parts/tabs";
import { When } from "../parts/times";

type Webhook = Answer<"/user/webhooks", "get">["data"][number];
type Event = NonNullable<Webhook["events"]>[number];

const TABS: Tab[] = [
  ["", "Webhooks"],
  ["deliveries", "Deliveries"],
];
const EVENTS: [Event, string][] = [
  ["balance.low", "The credits last less than a day"],
  ["key.budget_near", "A key has used 90% of its budget"],
  ["key.budget_reached", "A key has used its budget"],
  ["key.expiring", "A key ends within 7 days"],
  ["key.created", "A key was created"],
  ["key.rotated", "A key was rotated"],
  ["key.revoked", "A key was revoked"],
];
const at = ({ id }: { id: string }) => ({ path: { channel_id: id } });

export function Webhooks() {
  const { tab, open } = route.value.filters;
  const loaded = useData("/user/webhooks", { query: { limit: 100 } }, 60);
  const isList = tab !== "deliveries";
  return (
    <>
      <Heading title="Webhooks">{isList && <AddWebhook />}</Heading>
      <FilterTabs tabs={TABS} label="Webhooks" />
      {isList ? (
        <Panel>
          <List
            loaded={loaded}
            caption="Webhooks"
            nothing={
              <>
                <p>
                  There is no webhook. With one, a program of yours is told when credits run low, or a key is near its
                  budget.
                </p>
                <AddWebhook first="Add the first webhook" />
              </>
            }
            keyOf={({ id }) => id}
            link={({ id }) => withFilters({ open: id })}
            open={({ id }) => id === open}
            columns={[
              { name: "Name", of: (one) => <span class="cut">{one.name}</span> },
              { name: "Address", of: (one) => <code class="cut">{one.url}</code>, wide: true },
              { name: "Events", of: (one) => eventsOf(one), wide: true },
              { name: "State", of: (one) => <ChannelState of={one} /> },
              { name: "Last sent", of: (one) => <When at={one.told_at} /> },
            ]}
          />
        </Panel>
      ) : (
        <Deliveries path="/user/webhooks/deliveries" channels={loaded.data?.data ?? []} />
      )}
      {isList && open && <OneWebhook key={open} id={open} />}
    </>
  );
}

const eventsOf = ({ events }: Webhook): string => (events ? `${events.length} of ${EVENTS.length}` : "all");

function OneWebhook({ id }: { id: string }) {
  const loaded = useData("/user/webhooks/{channel_id}", at({ id }));
  return (
    <EntrySide loaded={loaded} kind="Webhook" title={({ name }) => name}>
      {(webhook) => <WholeWebhook webhook={webhook} />}
    </EntrySide>
  );
}

async function turn(webhook: Webhook, state: Webhook["state"]): Promise<void> {
  await change("patch", "/user/webhooks/{channel_id}", { ...at(webhook), body: { state } });
  notify(`The webhook is ${state}.`, () => void turn(webhook, webhook.state));
}

function WholeWebhook({ webhook }: { webhook: Webhook }) {
  const [asked, ask] = useState<Asked>(null);
  const close = () => ask(null);
  return (
    <>
      <ChannelActions of={webhook} hasSecret ask={ask} turn={(state) => turn(webhook, state)} />
      <Failing of={webhook} />
      <TestButton test={() => change("post", "/user/webhooks/{channel_id}/test", at(webhook))} />
      <Facts
        facts={[
          ["Address", <code key="url">{webhook.url}</code>],
          ["Secret", <code key="secret">…{webhook.last_four}</code>],
          ["State", <ChannelState key="state" of={webhook} />],
          ["Events", codes(webhook.events, "all")],
          ["Last sent", <When key="told" at={webhook.told_at} seconds />],
          ["Created", <When key="created" at={webhook.created_at} />],
          [
            "Deliveries",
            <a key="deliveries" class="text" href={link("webhooks", { tab: "deliveries", channel_id: webhook.id })}>
              what it was told
            </a>,
          ],
        ]}
      />
      {asked === "edit" && <EditDialog webhook={webhook} close={close} />}
      {asked === "secret" && <SecretDialog webhook={webhook} close={close} />}
      {asked === "delete" && <DeleteDialog webhook={webhook} close={close} />}
    </>
  );
}

const Fields = ({ webhook }: { webhook?: Webhook }) => (
  <>
    <Input label="Name" name="name" required maxLength={200} placeholder="billing" defaultValue={webhook?.name ?? ""} />
    <Input
      label="URL"
      name="url"
      type="url"
      required
      placeholder="https://example.com/tollgate"
      defaultValue={webhook?.url ?? ""}
      hint={webhook ? "Another URL gets another secret." : "A public address. It gets a signed POST."}
    />
    <fieldset class="checks">
      <legend>It is told when</legend>
      {EVENTS.map(([event, label]) => (
        <Check
          key={event}
          name="events"
          value={event}
          label={label}
          defaultChecked={!webhook?.events || webhook.events.includes(event)}
        />
      ))}
    </fieldset>
  </>
);

/** All events are null, so that those of later versions are told too. */
function bodyOf(values: Values) {
  const events = values.all("events");
  return {
    name: values.text("name"),
    url: values.text("url"),
    events: events.length === EVENTS.length ? null : events,
  };
}

interface DialogProps {
  webhook: Webhook;
  close: () => void;
}

function AddWebhook({ first }: MayBeFirst) {
  const [asked, ask] = useState(false);
  const submit = async (values: Values, idempotencyKey: string) => {
    const made = await change("post", "/user/webhooks", { body: bodyOf(values), idempotencyKey });
    go(withFilters({ open: made.id }));
    saved(made.name, made.secret, "The webhook is added. Send a test to it.");
  };
  return (
    <>
      <AddButton label="Add a webhook" first={first} onClick={() => ask(true)} />
      {asked && (
        <FormDialog title="Add a webhook" action="Add" onClose={() => ask(false)} submit={submit}>
          <Fields />
        </FormDialog>
      )}
    </>
  );
}

function EditDialog({ webhook, close }: DialogProps) {
  const submit = async (values: Values) => {
    const done = await change("patch", "/user/webhooks/{channel_id}", { ...at(webhook), body: bodyOf(values) });
    saved(done.name, done.secret, "The webhook is changed.");
  };
  return (
    <FormDialog title={`Edit ${webhook.name}`} action="Save" onClose={close} submit={submit}>
      <Fields webhook={webhook} />
    </FormDialog>
  );
}

function SecretDialog({ webhook, close }: DialogProps) {
  const submit = async () => {
    const secret = newSecret();
    await change("patch", "/user/webhooks/{channel_id}", { ...at(webhook), body: { secret } });
    saved(webhook.name, secret, "");
  };
  return (
    <FormDialog title={`New secret of ${webhook.name}`} action="Replace" onClose={close} submit={submit}>
      <p>From now on messages are signed with the new secret alone. It is shown once.</p>
    </FormDialog>
  );
}

function DeleteDialog({ webhook, close }: DialogProps) {
  const submit = async () => {
    await change("delete", "/user/webhooks/{channel_id}", at(webhook));
    go(withFilters({ open: "" }));
  };
  return (
    <FinalDialog title={`Delete ${webhook.name}`} action="Delete" name={webhook.name} onClose={close} submit={submit}>
      <p>Its secret and the record of its deliveries are lost. Nothing more is told to it.</p>
    </FinalDialog>
  );
}
