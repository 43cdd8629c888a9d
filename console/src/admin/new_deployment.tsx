/** Adds a model to a host: the host, the files, the engine with its options, the price; and beside it the dry-run. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Panel, Shown, useData } from "../parts/data";
import { Form, type Values } from "../parts/dialogs";
import { Heading } from "../parts/frame";
import { go, link, linkTo, route } from "../parts/routing";
import { change } from "../parts/session";
import { DryRunShown, useDryRun } from "./dry_run";
import { Contact, capabilitiesOf, type Deployment, ENGINES, type Host, type Spec } from "./fleet";
import { type Chosen, ModelSource } from "./model_source";
import { kindOf, PriceFields, pricingOf, SpecFields, specOf } from "./spec_fields";

type Wanted = Deployment["wanted"];
const WANTED: [Wanted, string][] = [
  ["running", "Start it now"],
  ["on_demand", "Load it at the first call"],
  ["stopped", "Only add it"],
];

export function NewDeployment() {
  const loaded = useData("/admin/hosts", { query: { limit: 100, sort: "name:asc" } });
  return (
    <>
      <Heading title="Add a model to a host" />
      <Shown loaded={loaded}>
        {({ data }) => {
          const hosts = data.filter(({ state, contact }) => state !== "retired" && contact !== "never");
          return hosts.length ? <Wizard hosts={hosts} /> : <NoHost />;
        }}
      </Shown>
    </>
  );
}

const isSeen = ({ contact }: Host): boolean => contact === "seen";

const NoHost = () => (
  <div class="nothing-here">
    <p>No machine has enrolled as a host yet. Add one first: it runs the model.</p>
    <a class="button" href={link("hosts")}>
      To the hosts
    </a>
  </div>
);

const Step = ({ title, children }: { title: string; children: ComponentChildren }) => (
  <section class="step">
    <h2>{title}</h2>
    {children}
  </section>
);

function Wizard({ hosts }: { hosts: Host[] }) {
  const { host_id } = route.value.filters;
  const [hostId, setHost] = useState(
    (hosts.find(({ id }) => id === host_id) ?? hosts.find(isSeen) ?? hosts[0])?.id ?? "",
  );
  const host = hosts.find(({ id }) => id === hostId);
  const [chosen, choose] = useState<Chosen | null>(null);
  const [picked, pick] = useState<Spec["engine"] | null>(null);
  const [typed, type] = useState<string | null>(null);
  const [values, setValues] = useState<Values | null>(null);
  const engine = picked ?? chosen?.engine ?? "vllm";
  const name = typed ?? chosen?.name ?? "";
  const kind = kindOf(engine, values?.text("kind") || "text");
  const ready = !!(chosen && name && values);
  const spec = ready ? specOf(values, engine, chosen.source, name) : null;
  const dryRun = useDryRun(spec && { host_id: hostId, spec, facts: chosen?.facts });
  const submit = async (given: Values, idempotencyKey: string) => {
    if (!chosen) return;
    const body = {
      host_id: hostId,
      spec: specOf(given, engine, chosen.source, name),
      pricing: pricingOf(given, kind),
      context_tokens: given.number("context_length"),
      hub_token: given.optional("hub_token"),
      wanted: given.text("wanted"),
    };
    const made = await change("post", "/admin/models", { body, idempotencyKey });
    go(linkTo("deployments", made.id));
  };
  return (
    <div class="wizard">
      <Panel>
        <Form action="Add the model" ready={ready} submit={submit} onInput={setValues}>
          <Step title="1. Host">
            <HostSelect hosts={hosts} id={hostId} choose={setHost} />
          </Step>
          <Step title="2. Files of the model">{host && <ModelSource key={hostId} host={host} choose={choose} />}</Step>
          <Step title="3. Engine">
            <div class="pair">
              <EngineSelect host={host} engine={engine} choose={pick} />
              <label class="field">
                <span>Name for clients</span>
                <input
                  value={name}
                  required
                  maxLength={128}
                  placeholder="our/llama"
                  autocomplete="off"
                  spellcheck={false}
                  onInput={(event) => type(event.currentTarget.value.trim())}
                />
              </label>
            </div>
            <SpecFields key={`${engine} ${hostId}`} engine={engine} host={host} />
          </Step>
          <Step title="4. Price">
            <PriceFields kind={kind} />
            <fieldset class="segments start">
              <legend class="offscreen">What should happen then</legend>
              {WANTED.map(([wanted, label], index) => (
                <label key={wanted}>
                  <input type="radio" name="wanted" value={wanted} defaultChecked={index === 0} />
                  <span>{label}</span>
                </label>
              ))}
            </fieldset>
          </Step>
        </Form>
      </Panel>
      <Panel title="What would be started">
        <DryRunShown
          dryRun={dryRun}
          host={host}
          missing={ready ? undefined : "Choose the files of the model, and a name for clients."}
        />
      </Panel>
    </div>
  );
}

const HostSelect = ({ hosts, id, choose }: { hosts: Host[]; id: string; choose: (id: string) => void }) => {
  const host = hosts.find((one) => one.id === id);
  return (
    <div class="group">
      <select class="grow" aria-label="Host" value={id} onChange={(event) => choose(event.currentTarget.value)}>
        {hosts.map((one) => (
          <option key={one.id} value={one.id}>
            {one.name}
          </option>
        ))}
      </select>
      {host && <Contact host={host} />}
    </div>
  );
};

const SURE = new Set(["tts", "custom"]);

/** Engines that the agent did not find may be there as a container. */
function EngineSelect({
  host,
  engine,
  choose,
}: {
  host: Host | undefined;
  engine: Spec["engine"];
  choose: (engine: Spec["engine"]) => void;
}) {
  const { engines } = capabilitiesOf(host ?? { capabilities: null });
  const nameOf = ([one, name]: [Spec["engine"], string]) =>
    SURE.has(one) || engines.includes(one) ? name : `${name} (not found on the host)`;
  return (
    <label class="field">
      <span>Engine</span>
      <select value={engine} onChange={(event) => choose(event.currentTarget.value as Spec["engine"])}>
        {ENGINES.map((one) => (
          <option key={one[0]} value={one[0]}>
            {nameOf(one)}
          </option>
        ))}
      </select>
    </label>
  );
}
