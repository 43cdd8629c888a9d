/** Your own machines: whether their agents call, what they have, and how full they are. */
import { useState } from "preact/hooks";
import { Icon } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { Choice } from "../parts/filters";
import { Heading } from "../parts/frame";
import { linkTo, route } from "../parts/routing";
import { List } from "../parts/table";
import { AddHostDialog, EnrolDialog, type Enrolled } from "./enrolment";
import { Contact, capabilitiesOf, engineName, gpusInWords, type Host, UsedShare } from "./fleet";
import { OneHost } from "./host";

const STATES: [Host["state"], string][] = [
  ["active", "Active"],
  ["cordoned", "Cordoned"],
  ["retired", "Retired"],
];

export const Hosts = () => {
  const id = route.value.parts[1];
  return id ? <OneHost key={id} id={id} /> : <AllHosts />;
};

function AllHosts() {
  const { state, sort, cursor } = route.value.filters;
  const loaded = useData("/admin/hosts", { query: { state, sort, cursor, limit: 50 } }, 30);
  const [adding, add] = useState(false);
  const [enrolled, show] = useState<Enrolled | null>(null);
  return (
    <>
      <Heading title="Hosts">
        <button type="button" class="primary" onClick={() => add(true)}>
          <Icon name="plus" /> Add a host
        </button>
      </Heading>
      <div class="filters">
        <Choice name="state" label="State" options={STATES} />
      </div>
      <Panel>
        <List
          loaded={loaded}
          caption="Hosts"
          nothing={
            <>
              <p>
                There is no machine of your own yet. Add one, and its agent runs models on it that customers pay for.
              </p>
              <button type="button" onClick={() => add(true)}>
                Add a host
              </button>
            </>
          }
          keyOf={({ id }) => id}
          link={({ id }) => linkTo("hosts", id)}
          columns={[
            { name: "Name", of: (host) => <span class="cut">{host.name}</span>, sort: "name" },
            { name: "Agent", of: (host) => <Contact host={host} /> },
            { name: "GPUs", of: (host) => <span class="cut short">{gpusInWords(host)}</span>, wide: true },
            {
              name: "Engines",
              of: (host) => <span class="cut">{capabilitiesOf(host).engines.map(engineName).join(", ") || "–"}</span>,
              wide: true,
            },
            {
              name: "Memory",
              of: ({ sample }) => (
                <UsedShare used={sample?.memory_used_bytes} total={sample?.memory_total_bytes} label="Memory" />
              ),
              wide: true,
            },
            {
              name: "Disk",
              of: ({ sample }) => (
                <UsedShare used={sample?.disk_used_bytes} total={sample?.disk_total_bytes} label="Disk" />
              ),
              wide: true,
            },
            { name: "Running", of: ({ running, models }) => `${running} of ${models}`, number: true },
            { name: "Version", of: (host) => host.agent_version ?? "–", wide: true },
          ]}
        />
      </Panel>
      {adding && <AddHostDialog close={() => add(false)} show={show} />}
      {enrolled && <EnrolDialog given={enrolled} before={null} close={() => show(null)} />}
    </>
  );
}
