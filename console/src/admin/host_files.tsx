/** Folders of a host, and the models in them, as its agent reads them. */
import { notify } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Form, Input, type Values } from "../parts/dialogs";
import { Facts } from "../parts/figures";
import { counted, Status, sized } from "../parts/numbers";
import { link, route, withFilters } from "../parts/routing";
import { change } from "../parts/session";
import { Table } from "../parts/table";
import { capabilitiesOf, type Host } from "./fleet";
import { BASE_FOLDER, folderName, type Inspected, inspected, modelsIn } from "./model_folders";

export const Files = ({ host }: { host: Host }) =>
  host.contact === "seen" ? (
    <>
      <Panel title="Folder of models">
        <BaseDir host={host} />
      </Panel>
      <Panel title="Folders">
        <Folders host={host} />
      </Panel>
      {route.value.filters.folder && <OneFolder key={route.value.filters.folder} host={host} />}
    </>
  ) : (
    <Panel>
      <p class="soft">Files are read by the agent, and it does not call now.</p>
    </Panel>
  );

function BaseDir({ host }: { host: Host }) {
  const submit = async (values: Values) => {
    const body = { base_dir: values.optional("base_dir") };
    await change("patch", "/admin/hosts/{host_id}", { path: { host_id: host.id }, body });
    notify("The agent looks there from its next call on.");
  };
  const { roots } = capabilitiesOf(host);
  return (
    <Form action="Use this folder" submit={submit}>
      <Input
        label="Folder"
        name="base_dir"
        spellcheck={false}
        placeholder={roots[0] ?? "/srv/models"}
        defaultValue={host.base_dir ?? ""}
        hint={
          <>
            Empty: the first that the agent's command line allows. It allows{" "}
            {roots.map((root) => (
              <code key={root}>{root} </code>
            ))}
          </>
        }
      />
    </Form>
  );
}

function Folders({ host }: { host: Host }) {
  const loaded = useData("/admin/models/local-folders", { query: { host_id: host.id } });
  const { folder: open } = route.value.filters;
  return (
    <Shown loaded={loaded}>
      {(found) => (
        <Table
          caption="Folders"
          rows={[BASE_FOLDER, ...(found as string[])]}
          keyOf={(folder) => folder}
          link={(folder) => withFilters({ folder })}
          open={(folder) => folder === open}
          columns={[{ name: "Folder", of: (folder) => <span class="prose">{folderName(folder)}</span> }]}
        />
      )}
    </Shown>
  );
}

function OneFolder({ host }: { host: Host }) {
  const { folder = "" } = route.value.filters;
  const loaded = useData("/admin/models/inspect-folder", { query: { host_id: host.id, folder } });
  return (
    <Panel title={folderName(folder)}>
      <Shown loaded={loaded}>{(found) => <Contents host={host} folder={folder} found={inspected(found)} />}</Shown>
    </Panel>
  );
}

function Contents({ host, folder, found }: { host: Host; folder: string; found: Inspected }) {
  const models = modelsIn(found);
  return (
    <>
      {found.warnings?.map((warning) => (
        <p key={warning} class="status warn wraps">
          {warning}
        </p>
      ))}
      {models.length > 0 ? (
        <Table
          caption="Models in this folder"
          rows={models}
          keyOf={({ path }) => path}
          columns={[
            { name: "Model", of: ({ name }) => <span class="cut">{name}</span> },
            { name: "Format", of: ({ format }) => format, wide: true },
            { name: "Quantisation", of: ({ quantization }) => quantization ?? "–", wide: true },
            { name: "Parts", of: ({ parts }) => parts, wide: true },
            { name: "Size", of: ({ bytes }) => sized(bytes), number: true, wide: true },
            { name: "State", of: ({ state }) => <Status of={state} />, wide: true },
            {
              name: "",
              of: ({ path, name, usable }) =>
                usable && (
                  <a
                    class="button"
                    aria-label={`Run ${name}`}
                    href={link("deployments/new", { host_id: host.id, folder, path })}
                  >
                    Run this model
                  </a>
                ),
            },
          ]}
        />
      ) : (
        <p class="soft">There is no model in this folder.</p>
      )}
      <Facts
        facts={[
          ["Path", <code key="path">{found.path}</code>],
          ["Engine", found.engine_recommendation?.reason ?? "–"],
          ["Parameters", found.params_b ? `${found.params_b} billion` : "–"],
          ["Context", longest(found)],
          ["Files of the tokenizer", found.tokenizer_files?.join(", ") || "–"],
        ]}
      />
    </>
  );
}

const longest = (found: Inspected): string => {
  const context = Math.max(0, ...modelsIn(found).map(({ facts }) => Number(facts?.context_length) || 0));
  return context ? `${counted(context)} tokens` : "–";
};
