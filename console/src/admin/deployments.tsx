/** The models that should run on hosts: what is asked of each, and what its host says. */
import { Icon } from "../parts/basics";
import { Panel } from "../parts/data";
import { Choice } from "../parts/filters";
import { Heading } from "../parts/frame";
import { link, route } from "../parts/routing";
import { OneDeployment } from "./deployment";
import { DeploymentList } from "./deployment_list";
import { ENGINES } from "./fleet";
import { NewDeployment } from "./new_deployment";

const PHASES = [
  "stopped",
  "downloading",
  "starting",
  "loading",
  "running",
  "draining",
  "stopping",
  "failed",
  "unknown",
];
const named = (words: string[]): [string, string][] => words.map((word) => [word, word.replace("_", " ")]);

export function Deployments() {
  const id = route.value.parts[1];
  if (id === "new") return <NewDeployment />;
  return id ? <OneDeployment key={id} id={id} /> : <AllDeployments />;
}

const AllDeployments = () => (
  <>
    <Heading title="Models on hosts">
      <a class="button" href={link("hosts")}>
        Hosts
      </a>
      <a class="button primary" href={link("deployments/new")}>
        <Icon name="plus" /> Add a model
      </a>
    </Heading>
    <div class="filters">
      <Choice name="phase" label="Phase" options={named(PHASES)} />
      <Choice name="wanted" label="Wanted" options={named(["running", "on_demand", "stopped"])} />
      <Choice name="engine" label="Engine" options={ENGINES} />
      <Choice name="archived" label="Archive" all="Not archived" options={[["true", "Archived"]]} />
    </div>
    <Panel>
      <DeploymentList />
    </Panel>
  </>
);
