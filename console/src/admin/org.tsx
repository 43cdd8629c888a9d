/** The page of one org: its balance, ledger, usage, limits, users and keys, and what may be done to it. */
import { useState } from "preact/hooks";
import { Money, notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Check, FinalDialog, FormDialog, Input, Lines, Select, type Values } from "../parts/dialogs";
import { Facts, Figures } from "../parts/figures";
import { Heading } from "../parts/frame";
import { Count, Credits, counted, Rate, Status } from "../parts/numbers";
import { go, link } from "../parts/routing";
import { type Answer, change } from "../parts/session";
import { openTab, type Tab, Tabs } from "../parts/tabs";
import { When } from "../parts/times";
import { UpstreamKeys } from "../parts/upstream_keys";
import { AdjustDialog, GrantDialog, RefundDialog } from "./credit_dialogs";
import { AdminKeys } from "./keys";
import { Limits } from "./limits";
import { ModelInput } from "./pickers";
import { usePlans } from "./plans";
import { TermFields, termsOf } from "./terms";
import { TransferList } from "./transfers";
import { UsageByModel } from "./usage_by_model";
import { UserList } from "./users";

type Row = Answer<"/admin/orgs/{org_id}", "get">;
type Asked = "grant" | "adjust" | "refund" | "edit" | "plan" | "delete" | null;

const TABS: Tab[] = [
  ["", "Ledger"],
  ["usage", "Usage"],
  ["limits", "Limits"],
  ["users", "Users"],
  ["keys", "Keys"],
  ["upstream-keys", "Upstream keys"],
  ["details", "Details"],
];

const given = ({ id }: { id: string }) => ({ path: { org_id: id } });

export function Org({ id }: { id: string }) {
  const loaded = useData("/admin/orgs/{org_id}", given({ id }));
  return <Shown loaded={loaded}>{(org) => <Page org={org} />}</Shown>;
}

function Page({ org }: { org: Row }) {
  const [asked, ask] = useState<Asked>(null);
  return (
    <div class="entry">
      <Heading
        title={
          <>
            {org.name} <Status of={org.status} />
          </>
        }
      >
        <button type="button" class="primary" onClick={() => ask("grant")}>
          Grant credits
        </button>
        <button type="button" onClick={() => ask("adjust")}>
          Adjust
        </button>
        <button type="button" onClick={() => ask("refund")}>
          Refund
        </button>
        <button type="button" onClick={() => ask("edit")}>
          Edit
        </button>
        <button type="button" onClick={() => void setStatus(org, org.status === "active" ? "suspended" : "active")}>
          {org.status === "active" ? "Suspend" : "Activate"}
        </button>
        <button type="button" class="danger" onClick={() => ask("delete")}>
          Delete
        </button>
      </Heading>
      {org.paid_calls === "suspended" && <PaidCallsSuspended org={org} />}
      <Panel>
        <Balance org={org} changePlan={() => ask("plan")} />
      </Panel>
      <Tabs tabs={TABS} label={`Sections of ${org.name}`} />
      <Section org={org} />
      <OrgDialog org={org} asked={asked} close={() => ask(null)} />
    </div>
  );
}

const Balance = ({ org, changePlan }: { org: Row; changePlan: () => void }) => (
  <Figures
    figures={[
      {
        name: "Available",
        value: <Credits of={org.available_credits} />,
        note: "The balance without what running requests hold",
        large: true,
      },
      { name: "Balance", value: <Credits of={org.credits} /> },
      {
        name: "Held",
        value: <Credits of={org.held_credits} />,
        note: `by ${counted(org.open_requests)} open requests`,
      },
      {
        name: "Plan",
        value: org.plan,
        note: (
          <button type="button" class="link" onClick={changePlan}>
            Change the plan
          </button>
        ),
      },
    ]}
  />
);

function PaidCallsSuspended({ org }: { org: Row }) {
  return (
    <div class="problem" role="status">
      <strong>Paid calls of this org are suspended</strong>
      <p>{org.paid_suspended_reason ?? "Its requests are refused until you resume them."}</p>
      <div>
        <button type="button" onClick={() => void setPaidCalls(org, "active")}>
          Resume paid calls
        </button>
      </div>
    </div>
  );
}

function Section({ org }: { org: Row }) {
  switch (openTab()) {
    case "":
      return <TransferList orgId={org.id} />;
    case "usage":
      return <UsageByModel filters={{ org_id: org.id }} />;
    case "limits":
      return <Limits subject={{ org_id: org.id }} />;
    case "users":
      return <UserList orgId={org.id} />;
    case "keys":
      return <AdminKeys query={{ org_id: org.id }} />;
    case "upstream-keys":
      return <UpstreamKeys path="/admin/orgs/{org_id}/upstream-keys" given={given(org)} />;
    default:
      return <Details org={org} />;
  }
}

const Details = ({ org }: { org: Row }) => (
  <Panel>
    <Facts
      facts={[
        ["Id", <code key="id">{org.id}</code>],
        ["Name", org.name],
        ["State", <Status key="status" of={org.status} />],
        [
          "Plan",
          <a key="plan" class="text" href={link("plans", { open: org.plan })}>
            {org.plan}
          </a>,
        ],
        ["Markup", org.markup === null ? "as the plan" : <Rate key="markup" of={org.markup} />],
        [
          "Open requests",
          `${counted(org.open_requests)}${org.max_concurrent_requests === null ? "; at most as the plan" : ` of at most ${counted(org.max_concurrent_requests)}`}`,
        ],
        [
          "Fee of calls with an upstream key of its own",
          org.byok_fee_credits === null ? "as the plan" : <Credits key="fee" of={org.byok_fee_credits} />,
        ],
        ["Models", org.allowed_models?.join(", ") ?? "all"],
        ["Default model", org.default_model ?? "as the setting DEFAULT_MODEL"],
        ["Completion cache", org.cache ? "used where a request does not say" : "used where a request asks for it"],
        ["Paid calls", <Status key="paid" of={org.paid_calls} />],
        ["Users", <Count key="users" of={org.users} />],
        ["Balance", <Money key="balance" nanos={BigInt(org.credits_nanos)} />],
        ["Created", <When key="created" at={org.created_at} />],
        ["Changed", <When key="updated" at={org.updated_at} />],
      ]}
    />
  </Panel>
);

/** At once, since it can be undone. */
async function setStatus(org: Row, status: Row["status"]): Promise<void> {
  await change("patch", "/admin/orgs/{org_id}", { ...given(org), body: { status } });
  notify(`${org.name} is ${status}.`, () => void setStatus(org, status === "active" ? "suspended" : "active"));
}

async function setPaidCalls(org: Row, paid_calls: Row["paid_calls"]): Promise<void> {
  await change("patch", "/admin/orgs/{org_id}", { ...given(org), body: { paid_calls } });
  notify(
    `Paid calls of ${org.name} are ${paid_calls}.`,
    () => void setPaidCalls(org, paid_calls === "active" ? "suspended" : "active"),
  );
}

interface DialogProps {
  org: Row;
  close: () => void;
}

function OrgDialog({ asked, ...props }: DialogProps & { asked: Asked }) {
  switch (asked) {
    case "grant":
      return <GrantDialog {...props} />;
    case "adjust":
      return <AdjustDialog {...props} />;
    case "refund":
      return <RefundDialog close={props.close} />;
    case "edit":
      return <EditDialog {...props} />;
    case "plan":
      return <PlanDialog {...props} />;
    case "delete":
      return <DeleteDialog {...props} />;
    default:
      return null;
  }
}

function EditDialog({ org, close }: DialogProps) {
  const submit = (values: Values) =>
    change("patch", "/admin/orgs/{org_id}", {
      ...given(org),
      body: {
        name: values.text("name"),
        ...termsOf(values),
        default_model: values.optional("default_model"),
        allowed_models: values.list("allowed_models"),
        cache: values.checked("cache"),
      },
    });
  return (
    <FormDialog title={`Edit ${org.name}`} action="Save" onClose={close} submit={submit}>
      <Input label="Name" name="name" required maxLength={200} defaultValue={org.name} />
      <TermFields row={org} none="As the plan" />
      <ModelInput
        label="Default model"
        name="default_model"
        placeholder="As the setting DEFAULT_MODEL"
        hint="The model or alias of calls that name none."
        defaultValue={org.default_model ?? ""}
      />
      <Lines
        label="Models"
        name="allowed_models"
        placeholder="All models"
        hint="One a line; * stands for any characters, as in openai/*. The org's keys may use no others."
        defaultValue={org.allowed_models?.join("\n") ?? ""}
      />
      <Check
        label="Use the completion cache where a request does not say"
        name="cache"
        hint="For embeddings, and for requests at temperature 0."
        defaultChecked={org.cache}
      />
    </FormDialog>
  );
}

function PlanDialog({ org, close }: DialogProps) {
  const plans = usePlans();
  const moveTo = async (plan: string) => {
    await change("post", "/admin/assign-plan", { body: { org_id: org.id, plan } });
    notify(`${org.name} is on the plan ${plan}.`);
  };
  return (
    <FormDialog
      title={`Move ${org.name} to another plan`}
      action="Move"
      ready={plans.length > 0}
      onClose={close}
      submit={(values) => moveTo(values.text("plan"))}
    >
      <p class="soft">The org keeps its own limits and its own markup.</p>
      <Select key={plans.length} label="Plan" name="plan" options={plans} defaultValue={org.plan} />
    </FormDialog>
  );
}

function DeleteDialog({ org, close }: DialogProps) {
  const submit = async () => {
    await change("delete", "/admin/orgs/{org_id}", given(org));
    go(link("orgs"));
    notify(`${org.name} is deleted.`);
  };
  return (
    <FinalDialog title={`Delete ${org.name}`} action="Delete" name={org.name} onClose={close} submit={submit}>
      <p>
        Only an org without a balance, open requests and users can be deleted. Its requests, transfers and audit events
        are kept.
      </p>
    </FinalDialog>
  );
}
