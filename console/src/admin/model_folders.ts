/** What an agent says of a folder, as the models that can be run from it. */

export type FileFacts = Record<string, unknown>;

interface Group {
  display_name: string;
  quant_type: string | null;
  files: string[];
  expected_parts: number;
  actual_parts: number;
  total_size_mb: number;
  status: string;
  can_use: boolean;
  facts?: FileFacts;
}

export interface Inspected {
  path: string;
  safetensor_info?: {
    file_count: number;
    total_size_gb: number;
    architecture?: string | null;
    torch_dtype?: string | null;
  } | null;
  gguf_groups?: Group[];
  missing?: string[];
  warnings?: string[];
  params_b?: number | null;
  tokenizer_files?: string[];
  engine_recommendation?: { recommended: string | null; reason: string };
  facts?: FileFacts | null;
}

/** The answer of the agent. The API passes it on as it is. */
export const inspected = (found: object): Inspected => found as Inspected;

export interface FolderModel {
  path: string;
  name: string;
  format: "GGUF" | "safetensors";
  quantization: string | null;
  parts: string;
  bytes: number;
  /** ready, incomplete or unknown. */
  state: string;
  usable: boolean;
  facts: FileFacts | null;
}

export const BASE_FOLDER = ".";
export const folderName = (folder: string): string => (folder === BASE_FOLDER ? "The folder of models itself" : folder);

/** Safetensors make up one model, which is the folder. Each group of GGUF files is one, opened by its first part. */
export function modelsIn(found: Inspected): FolderModel[] {
  const groups = (found.gguf_groups ?? []).map(
    (group): FolderModel => ({
      path: `${found.path}/${group.files[0]}`,
      name: group.display_name,
      format: "GGUF",
      quantization: group.quant_type,
      parts: `${group.actual_parts} of ${group.expected_parts}`,
      bytes: group.total_size_mb * 2 ** 20,
      state: group.status,
      usable: group.can_use,
      facts: group.facts ?? null,
    }),
  );
  const { safetensor_info: whole } = found;
  if (!whole) return groups;
  const isWhole = !found.missing?.length;
  const folder: FolderModel = {
    path: found.path,
    name: found.path.split("/").at(-1) ?? found.path,
    format: "safetensors",
    quantization: whole.torch_dtype ?? null,
    parts: `${whole.file_count}`,
    bytes: whole.total_size_gb * 2 ** 30,
    state: isWhole ? "ready" : "incomplete",
    usable: true,
    facts: found.facts ?? null,
  };
  return [folder, ...groups];
}
