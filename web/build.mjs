// `node build.mjs` bundles src/ into the Python package, with `--check` it only says whether that would change a byte;
// `node build.mjs --tests` bundles tests/ for `node --test`.
import { createHash } from "node:crypto";
import { readFile, writeFile, readdir } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const target = join(here, "..", "src", "otoscope", "views", "static");

async function sources() {
  const entries = await readdir(join(here, "src"), { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return [...files, join(here, "package-lock.json")]
    .map((path) => relative(here, path).split(sep).join("/"))
    .sort();
}

/** SHA-256 over name and content of every source and the lockfile; the Python tests compute the same. */
async function digest() {
  const hash = createHash("sha256");
  for (const name of await sources()) {
    hash.update(`${name}\0`).update(await readFile(join(here, name))).update("\0");
  }
  return hash.digest("hex");
}

async function bundlePage() {
  const licence = (await readFile(join(here, "node_modules/preact/LICENSE"), "utf8")).trim();
  const stamp = `Generated from web/ by \`npm run build\`; do not edit.\nsources sha256: ${await digest()}`;
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: { page: "src/main.tsx", widget: "src/widget.ts", live: "src/css/live.css" },
    bundle: true,
    minify: true,
    write: false,
    outdir: "out",
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
  });
  for (const file of outputFiles) {
    const banner = basename(file.path) === "page.js" ? `/*\n${stamp}\n\nContains preact:\n${licence}\n*/\n` : `/*\n${stamp}\n*/\n`;
    await keep(join(target, basename(file.path)), banner + file.text);
  }
}

async function keep(path, text) {
  if (!process.argv.includes("--check")) return writeFile(path, text);
  if ((await readFile(path, "utf8")) === text) return undefined;
  throw new Error(`${path} is stale; run \`npm run build\`.`);
}

async function bundleTests() {
  const names = (await readdir(join(here, "tests"))).filter((name) => name.endsWith(".test.ts"));
  await build({
    absWorkingDir: here,
    entryPoints: names.map((name) => `tests/${name}`),
    bundle: true,
    platform: "node",
    format: "esm",
    outdir: "node_modules/.cache/tests",
    outExtension: { ".js": ".mjs" },
  });
}

await (process.argv.includes("--tests") ? bundleTests() : bundlePage());
