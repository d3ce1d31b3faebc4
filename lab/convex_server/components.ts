// The components that `convex/convex.config.ts` mounts, if there is one. Only Convex's bundler can run that file, so it
// is read: `import x from "<package>/convex.config.js"` and `.use(x)` or `.use(x, { name: "…" })`.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { GenericSchema, SchemaDefinition } from "convex/server";

export type Component = {
  /** Where it is mounted: its name, after those of the components around it. */
  path: string;
  schema: SchemaDefinition<GenericSchema, boolean>;
  modules: Record<string, () => Promise<object>>;
};

const IMPORT = /^import (\w+) from "(.+\/convex\.config(?:\.js)?)"/gm;
const USE = /\.use\((\w+)(?:, *\{[^}]*\bname: *"(\w+)")?/g;
const NAME = /defineComponent\("(\w+)"\)/;

/** Loads all of them, the ones inside others too. */
export async function loadComponents(functions: URL): Promise<Component[]> {
  const config = fileURLToPath(new URL("convex.config.ts", functions));
  return existsSync(config) ? mountedBy(config, "") : [];
}

async function mountedBy(config: string, prefix: string): Promise<Component[]> {
  const text = readFileSync(config, "utf8");
  const files = new Map<string, string>();
  for (const [, variable, file] of text.matchAll(IMPORT)) files.set(variable!, createRequire(config).resolve(file!));
  const mounted = [...text.matchAll(USE)].map(async ([use, variable, name]) => {
    const file = files.get(variable!);
    if (file === undefined) throw new Error(`${config}: where the component of "${use}" comes from cannot be read`);
    const path = prefix + (name ?? NAME.exec(readFileSync(file, "utf8"))?.[1] ?? variable!);
    return [await component(path, dirname(file)), ...(await mountedBy(file, `${path}/`))];
  });
  return (await Promise.all(mounted)).flat();
}

async function component(path: string, directory: string): Promise<Component> {
  const load = (file: string) => import(pathToFileURL(join(directory, file)).href) as Promise<object>;
  const { default: schema } = (await load("schema.js")) as { default: Component["schema"] };
  const files = readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".js"));
  return { path, schema, modules: Object.fromEntries(files.map((file) => [`component/${file}`, () => load(file)])) };
}
