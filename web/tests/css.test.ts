import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

/** All style sheets are one bundle on every page: what these name is shared on purpose, everything else belongs to one part. */
const SHARED = new Set(["page.css", "colours.css"]);
const OWN_PAGE = new Set(["live.css"]); // never beside the others

interface Rule {
  file: string;
  compounds: string[]; // of one selector: `.a .b.c` has two
}

function rules(): Rule[] {
  const folder = join("src", "css");
  return readdirSync(folder)
    .filter((file) => !OWN_PAGE.has(file))
    .flatMap((file) => {
      const text = readFileSync(join(folder, file), "utf8").replace(/\/\*.*?\*\//gs, "");
      const selectors = [...text.matchAll(/([^{}]+)\{/g)].flatMap(([, selector]) => (selector as string).split(","));
      return selectors.map((selector) => ({ file, compounds: selector.trim().split(/[\s>+~]+/).filter(Boolean) }));
    });
}

const classesOf = (compound: string) => [...compound.matchAll(/\.([A-Za-z][\w-]*)/g)].map(([, name]) => name as string);

test("a class that one part styles by itself is named in no other part's style sheet", () => {
  const all = rules();
  const own = new Map<string, Set<string>>(); // class: the files that style it wherever it stands
  for (const { file, compounds } of all) {
    const [name] = classesOf(compounds[0] ?? "");
    if (compounds.length === 1 && name && !SHARED.has(file)) own.set(name, (own.get(name) ?? new Set()).add(file));
  }
  const shared = new Set(all.filter(({ file }) => SHARED.has(file)).flatMap(({ compounds }) => compounds.flatMap(classesOf)));
  const clashes = all.flatMap(({ file, compounds }) =>
    compounds
      .flatMap(classesOf)
      .filter((name) => !SHARED.has(file) && !shared.has(name) && [...(own.get(name) ?? [])].some((other) => other !== file))
      .map((name) => `.${name} of ${[...(own.get(name) ?? [])].join(", ")} in ${file}: ${compounds.join(" ")}`),
  );
  assert.ok(own.size > 50);
  assert.deepEqual(clashes, []);
});
