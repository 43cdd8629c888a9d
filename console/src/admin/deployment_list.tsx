/** A list of the models on hosts. */
import { useData } from "../parts/data";
import { Count, Duration } from "../parts/numbers";
import { link, linkTo, route } from "../parts/routing";
import { List } from "../parts/table";
import { Contact, type Deployment, engineName, namesOf, Phase, pauseFor } from "./fleet";

/** All of them, or those of one host. Read again every few seconds while one is in transition. */
export function DeploymentList({ hostId }: { hostId?: string }) {
  const { phase, wanted, engine, archived, sort, cursor } = route.value.filters;
  const query = { host_id: hostId, phase, wanted, engine, archived, sort, cursor, limit: 50 };
  const loaded = useData("/admin/models", { query }, (found) => pauseFor(found?.data ?? []));
  return (
    <List
      loaded={loaded}
      caption="Models on hosts"
      nothing={
        <>
          <p>No model is on {hostId ? "this host" : "a host"} yet.</p>
          <a class="button" href={link("deployments/new", hostId ? { host_id: hostId } : {})}>
            Add a model
          </a>
        </>
      }
      keyOf={({ id }) => id}
      link={({ id }) => linkTo("deployments", id)}
      columns={[
        { name: "Model", of: (row) => <span class="cut">{row.name}</span>, sort: "name" },
        { name: "Phase", of: (row) => <Phase row={row} /> },
        { name: "Wanted", of: (row) => row.wanted.replace("_", " "), wide: true },
        ...(hostId ? [] : [{ name: "Host", of: (row: Deployment) => <OnHost row={row} />, wide: true }]),
        { name: "Engine", of: (row) => engineName(row.engine), wide: true },
        { name: "Clients call it", of: (row) => <span class="cut">{namesOf(row)}</span>, wide: true },
        {
          name: "Running, waiting",
          of: ({ metrics }) => (
            <>
              <Count of={metrics?.requests_running} /> / <Count of={metrics?.requests_waiting} />
            </>
          ),
          number: true,
          wide: true,
        },
        { name: "First token", of: ({ metrics }) => <Duration ms={metrics?.ttft_p50_ms} />, number: true, wide: true },
      ]}
    />
  );
}

const OnHost = ({ row: { host, host_id } }: { row: Deployment }) => (
  <span class="group">
    <a class="text cut short" href={linkTo("hosts", host_id)}>
      {host.name}
    </a>
    {host.contact !== "seen" && <Contact host={host} />}
  </span>
);
