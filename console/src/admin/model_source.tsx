/** Where the files of a model are: a repository of Hugging Face, a folder of the host, or a path on it. */
import { useEffect, useState } from "preact/hooks";
import { asProblem, type Problem } from "../parts/api";
import { Shown, useData } from "../parts/data";
import { counted, sized } from "../parts/numbers";
import { ProblemBox } from "../parts/problems";
import { link, route } from "../parts/routing";
import { get } from "../parts/session";
import type { Host, Spec } from "./fleet";
import { BASE_FOLDER, type FileFacts, type FolderModel, folderName, inspected, modelsIn } from "./model_folders";

export interface Chosen {
  source: Spec["source"];
  /** What the files say of the model, where they were read. */
  facts: FileFacts | null;
  engine: Spec["engine"] | null;
  /** For clients. */
  name: string;
}

interface SourceProps {
  host: Host;
  choose: (chosen: Chosen | null) => void;
}

const KINDS = [
  ["hub", "Hugging Face"],
  ["folder", "A folder of the host"],
  ["path", "A path"],
] as const;
type Kind = (typeof KINDS)[number][0];

export function ModelSource({ host, choose }: SourceProps) {
  const [kind, setKind] = useState<Kind>(route.value.filters.folder ? "folder" : "hub");
  const change = (next: Kind) => {
    setKind(next);
    choose(null);
  };
  return (
    <>
      <fieldset class="segments start">
        <legend class="offscreen">Where they are</legend>
        {KINDS.map(([value, label]) => (
          <label key={value}>
            <input type="radio" name="source" value={value} checked={kind === value} onChange={() => change(value)} />
            <span>{label}</span>
          </label>
        ))}
      </fieldset>
      {kind === "hub" && <FromHub host={host} choose={choose} />}
      {kind === "folder" &&
        (host.contact === "seen" ? (
          <FromFolder host={host} choose={choose} />
        ) : (
          <p class="soft">Folders are read by the agent of the host, and it does not call now. Give a path instead.</p>
        ))}
      {kind === "path" && <FromPath choose={choose} />}
    </>
  );
}

/** A name for clients, from that of a file, a folder or a repository. */
export const nameFrom = (path: string): string => {
  const last =
    path
      .replace(/\.gguf$/i, "")
      .split("/")
      .filter(Boolean)
      .at(-1) ?? "";
  const word = last.toLowerCase().replace(/[^a-z0-9._-]+/g, "-");
  return word ? `our/${word}`.slice(0, 128) : "";
};

interface HubConfig {
  architecture?: string | null;
  params_b?: number | null;
  max_position_embeddings?: number | null;
  files: string[];
  gguf_groups?: { quant_type: string | null; files: string[]; bytes: number; is_complete: boolean }[];
  facts?: FileFacts;
}

function FromHub({ host, choose }: SourceProps) {
  const [repo, setRepo] = useState("");
  const [revision, setRevision] = useState("");
  const [found, setFound] = useState<HubConfig | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const [group, setGroup] = useState("");
  useEffect(() => choose(repo ? ofHub(repo, revision, found, group) : null), [repo, revision, found, group]);
  const retype = (set: (text: string) => void) => (event: preact.TargetedInputEvent<HTMLInputElement>) => {
    set(event.currentTarget.value.trim());
    setFound(null);
    setGroup("");
  };
  const lookUp = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const query = { host_id: host.id, repo_id: repo, revision };
      setFound((await get("/admin/models/hf-config", { query })) as unknown as HubConfig);
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  return (
    <>
      <div class="pair">
        <label class="field">
          <span>Repository</span>
          <input
            value={repo}
            required
            placeholder="meta-llama/Llama-3.1-8B-Instruct"
            autocomplete="off"
            spellcheck={false}
            onInput={retype(setRepo)}
          />
        </label>
        <label class="field">
          <span>Revision</span>
          <input
            value={revision}
            placeholder="main"
            autocomplete="off"
            spellcheck={false}
            onInput={retype(setRevision)}
          />
        </label>
      </div>
      <TokenSelect />
      <button
        type="button"
        class="start"
        disabled={!repo || busy || host.contact !== "seen"}
        onClick={() => void lookUp()}
      >
        {busy ? "The host asks the hub…" : "Look it up"}
      </button>
      {problem && <ProblemBox problem={problem} title="It could not be looked up" />}
      {found && <Told found={found} group={group} choose={setGroup} />}
    </>
  );
}

function TokenSelect() {
  const loaded = useData("/admin/hf-tokens");
  const tokens = loaded.data?.data ?? [];
  return (
    <label class="field">
      <span>Token for a gated repository</span>
      <select name="hub_token">
        <option value="">None</option>
        {tokens.map(({ name }) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
      <small>
        Tokens are stored in the{" "}
        <a class="text" href={link("vault")}>
          vault
        </a>
        . The host gets it while it downloads; no engine ever does.
      </small>
    </label>
  );
}

function Told({ found, group, choose }: { found: HubConfig; group: string; choose: (group: string) => void }) {
  const groups = found.gguf_groups ?? [];
  const told = [
    found.architecture,
    found.params_b && `${found.params_b} billion parameters`,
    found.max_position_embeddings && `context of ${counted(found.max_position_embeddings)} tokens`,
    `${found.files.length} files`,
  ];
  return (
    <>
      <p class="soft" role="status">
        {told.filter(Boolean).join(", ")}
      </p>
      {groups.length > 0 && (
        <label class="field">
          <span>Quantisation</span>
          <select value={group} onChange={(event) => choose(event.currentTarget.value)}>
            <option value="">What the engine prefers</option>
            {groups.map(({ quant_type, files, bytes }) => (
              <option key={files[0]} value={files[0]}>
                {quant_type ?? files[0]} · {sized(bytes)}
              </option>
            ))}
          </select>
        </label>
      )}
    </>
  );
}

function ofHub(repo: string, revision: string, found: HubConfig | null, first: string): Chosen {
  const group = found?.gguf_groups?.find(({ files }) => files[0] === first);
  const hasTensors = found?.files.some((name) => name.endsWith(".safetensors"));
  const weights = group ? { weight_bytes: group.bytes } : {};
  return {
    source: { type: "hub", repo_id: repo, revision: revision || "main", files: group?.files ?? [] },
    facts: found?.facts ? { ...found.facts, ...weights } : null,
    engine: found?.gguf_groups?.length && (group || !hasTensors) ? "llamacpp" : found ? "vllm" : null,
    name: nameFrom(repo),
  };
}

function FromFolder({ host, choose }: SourceProps) {
  const [folder, setFolder] = useState(route.value.filters.folder ?? "");
  const loaded = useData("/admin/models/local-folders", { query: { host_id: host.id } });
  return (
    <>
      <Shown loaded={loaded}>
        {(found) => (
          <label class="field">
            <span>Folder</span>
            <select
              value={folder}
              onChange={(event) => {
                setFolder(event.currentTarget.value);
                choose(null);
              }}
            >
              <option value="">Choose one</option>
              {[BASE_FOLDER, ...(found as string[])].map((name) => (
                <option key={name} value={name}>
                  {folderName(name)}
                </option>
              ))}
            </select>
          </label>
        )}
      </Shown>
      {folder && <InFolder key={folder} host={host} folder={folder} choose={choose} />}
    </>
  );
}

function InFolder({ host, folder, choose }: SourceProps & { folder: string }) {
  const loaded = useData("/admin/models/inspect-folder", { query: { host_id: host.id, folder } });
  const found = loaded.data && inspected(loaded.data);
  const models = found ? modelsIn(found) : [];
  const asked = route.value.filters.path;
  const [path, setPath] = useState("");
  useEffect(() => {
    const usable = models.filter((one) => one.usable);
    const first = usable.find((one) => one.path === asked) ?? (usable.length === 1 ? usable[0] : undefined);
    if (first) setPath(first.path);
  }, [found]);
  useEffect(() => {
    const model = models.find((one) => one.path === path);
    choose(model ? ofFolder(model) : null);
  }, [path, found]);
  return (
    <Shown loaded={loaded}>
      {() => (
        <>
          {models.length === 0 && <p class="soft">There is no model in this folder.</p>}
          <fieldset class="found">
            <legend class="offscreen">Model</legend>
            {models.map((one) => (
              <label key={one.path} class="check">
                <input
                  type="radio"
                  name="model"
                  value={one.path}
                  disabled={!one.usable}
                  checked={one.path === path}
                  onChange={() => setPath(one.path)}
                />
                <span>
                  {one.name}
                  <small>
                    {[one.format, one.quantization, sized(one.bytes), one.state].filter(Boolean).join(", ")}
                  </small>
                </span>
              </label>
            ))}
          </fieldset>
          {found?.warnings?.map((warning) => (
            <p key={warning} class="status warn wraps">
              {warning}
            </p>
          ))}
        </>
      )}
    </Shown>
  );
}

const ofFolder = (model: FolderModel): Chosen => ({
  source: { type: "path", path: model.path },
  facts: model.facts,
  engine: model.format === "GGUF" ? "llamacpp" : "vllm",
  name: nameFrom(model.path),
});

const FromPath = ({ choose }: Pick<SourceProps, "choose">) => (
  <label class="field">
    <span>Path on the host</span>
    <input
      required
      placeholder="/srv/models/llama/model.gguf"
      autocomplete="off"
      spellcheck={false}
      onInput={(event) => {
        const path = event.currentTarget.value.trim();
        const engine = path.endsWith(".gguf") ? "llamacpp" : null;
        choose(path ? { source: { type: "path", path }, facts: null, engine, name: nameFrom(path) } : null);
      }}
    />
    <small>Inside the folders that the agent's command line allows. Its files are read when the model is added.</small>
  </label>
);
