// No public function lets a stranger in: the functions are found, not listed, so a new one cannot be forgotten.
import { makeFunctionReference } from "convex/server";
import { expect, test } from "vitest";
import { deployment, errorCode, LIFE, type Deployment } from "./fixtures";

type Exported = { isPublic?: boolean; isQuery?: boolean; exportArgs: () => string };
const modules = import.meta.glob<Record<string, unknown>>(["../../convex/*.ts", "!../../convex/auth.config.ts"], {
  eager: true,
});
const sources = import.meta.glob<string>("../../convex/*.ts", { eager: true, query: "?raw", import: "default" });

const publicFunctions = Object.entries(modules).flatMap(([path, module]) =>
  Object.entries(module)
    .filter(([, value]) => typeof value === "function" && (value as unknown as Exported).isPublic)
    .map(([name, value]) => ({
      path: `${path.split("/").at(-1)!.replace(".ts", "")}:${name}`,
      isQuery: (value as unknown as Exported).isQuery === true,
      args: Object.keys((JSON.parse((value as unknown as Exported).exportArgs()) as { value: object }).value),
    })),
);

const ARGUMENTS: Record<string, unknown> = {
  job_id: "j1",
  state: "queued",
  paginationOpts: { numItems: 5, cursor: null },
  updates: [LIFE[0]],
  node_id: "n1",
  report: {},
  received_at: "2026-03-01T12:00:00Z",
};

/** Calls `path` with arguments that would succeed for a member of `tenant_id`. */
function call(as: Deployment["t"] | ReturnType<Deployment["user"]>, path: string, tenant_id: unknown) {
  const { isQuery, args } = publicFunctions.find((one) => one.path === path)!;
  const given = Object.fromEntries(args.map((name) => [name, name === "tenant_id" ? tenant_id : ARGUMENTS[name]]));
  const type = isQuery ? "query" : "mutation";
  const run = as[type] as unknown as (reference: object, given: object) => Promise<unknown>;
  return run(makeFunctionReference(path), given);
}

const queries = publicFunctions.filter(({ isQuery }) => isQuery).map(({ path }) => path);
const mutations = publicFunctions.filter(({ isQuery }) => !isQuery).map(({ path }) => path);

test("the public functions are these", () => {
  expect(queries.sort()).toEqual(["jobs:get", "jobs:list", "jobs:timeline", "nodes:list"]);
  expect(mutations.sort()).toEqual(["nodes:recordHeartbeat", "projections:applyProjections"]);
});

test.each(publicFunctions.map(({ path }) => path))("%s needs a token", async (path) => {
  const { t } = await deployment();
  expect(await errorCode(call(t, path, "acme"))).toBe("unauthenticated");
});

test.each(queries)("%s serves members, and answers strangers as if nothing were there", async (path) => {
  const { apply, user, service } = await deployment();
  await apply([LIFE[0]!]);
  await expect(call(user("alice"), path, "acme")).resolves.toBeDefined();
  const strangers = [
    call(user("mallory"), path, "acme"),
    call(user("alice"), path, "rival"),
    call(user("alice"), path, "no-such-tenant"),
    call(user("alice"), path, ""),
    call(user("alice", "https://elsewhere.test"), path, "acme"),
    call(service(), path, "acme"),
  ];
  for (const stranger of strangers) expect(await errorCode(stranger)).toBe("not_found");
});

test.each(["jobs:get", "jobs:timeline"])("%s: a job of others is as missing as one of nobody", async (path) => {
  const { apply, user } = await deployment();
  await apply([LIFE[0]!]);
  const messages = ["acme", "rival"].map(async (tenant_id) => {
    const error = await call(user("mallory"), path, tenant_id).catch((thrown: unknown) => thrown);
    return (error as { data: unknown }).data;
  });
  const [foreign, missing] = await Promise.all(messages);
  expect(foreign).toEqual(missing);
});

test.each(["jobs:list", "jobs:timeline"])("%s: a cursor opens no other tenant", async (path) => {
  const { apply, user } = await deployment();
  await apply([LIFE[0]!, LIFE[1]!, { ...LIFE[0]!, job_id: "j2" }]);
  const run = user("alice").query as unknown as (
    reference: object,
    args: object,
  ) => Promise<{ continueCursor: string }>;
  const paginationOpts = { numItems: 1, cursor: null as string | null };
  const args = { tenant_id: "acme", paginationOpts, ...(path === "jobs:timeline" ? { job_id: "j1" } : {}) };
  const { continueCursor } = await run(makeFunctionReference(path), args);
  const stolen = { ...args, paginationOpts: { numItems: 5, cursor: continueCursor } };
  const theft = user("mallory").query as unknown as typeof run;
  expect(await errorCode(theft(makeFunctionReference(path), stolen))).toBe("not_found");
});

test.each(mutations)("%s is closed to users", async (path) => {
  const { user } = await deployment();
  expect(await errorCode(call(user("alice"), path, "acme"))).toBe("forbidden");
});

const RAW_BUILDERS = /\b(?:query|mutation|action|httpAction)(?:Generic)?\b/;

/** The imported names of each `import` from the places that hand out builders of public functions. */
function importedBuilders(source: string): string[] {
  const imports = source.matchAll(/import\s+(type\s+)?([^;]*?)\s+from\s+"(?:\.\/_generated\/server|convex\/server)"/g);
  return [...imports].filter(([, type]) => type === undefined).map(([, , names]) => names!);
}

test("only functions.ts holds the raw builders", () => {
  const holders = Object.entries(sources)
    .filter(([, source]) => importedBuilders(source).some((names) => names.includes("*") || RAW_BUILDERS.test(names)))
    .map(([path]) => path.split("/").at(-1));
  expect(holders).toEqual(["functions.ts"]);
});

test.each([
  'import { query } from "./_generated/server";',
  'import { internalMutation, mutation as raw } from "./_generated/server";',
  'import * as server from "convex/server";',
  'import {\n  queryGeneric,\n} from "convex/server";',
])("the fence sees %j", (source) => {
  expect(importedBuilders(source).some((names) => names.includes("*") || RAW_BUILDERS.test(names))).toBe(true);
});
