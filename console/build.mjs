/** Bundles the pages into the folder given, or into src/tollgate/console/files. File names never change: the digest of
 * a file is in the address that a page loads it by. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const folder = resolve(process.argv[2] ?? join(here, "../src/tollgate/console/files"));
const TITLES = { account: "Account", admin: "Console", playground: "Playground" };

const bundled = await build({
  absWorkingDir: here,
  entryPoints: [
    { in: "src/style.css", out: "style" },
    ...Object.keys(TITLES).map((name) => ({ in: `src/${name}/main.tsx`, out: name })),
  ],
  outdir: folder,
  bundle: true,
  minify: true,
  write: false,
  charset: "utf8",
  format: "iife",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  target: "es2022",
});

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex").slice(0, 12);
const files = new Map(bundled.outputFiles.map((file) => [file.path.slice(folder.length + 1), file.contents]));
const addressed = (page) => page.replace(/assets\/([\w.]+)/g, (link, name) => `${link}?v=${digest(files.get(name))}`);
const template = readFileSync(join(here, "src/page.html"), "utf8");

for (const [name, title] of Object.entries(TITLES)) {
  files.set(`${name}.html`, addressed(template.replaceAll("{{name}}", name).replaceAll("{{title}}", title)));
}
mkdirSync(folder, { recursive: true });
for (const [name, contents] of files) writeFileSync(join(folder, name), contents);
