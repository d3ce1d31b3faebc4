// What belongs to another tenant, in every argument of every public function; and arguments that are none at all.
import { makeFunctionReference } from "convex/server";
import { ConvexError } from "convex/values";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import { isName } from "../../convex/checks";
import { deployment, hashOf, LIFE, newKey, update, type Deployment } from "./fixtures";
import { ARGUMENTS, isOfAdapter, publicFunctions, type Argument, type Caller } from "./surface";

type Function = (typeof publicFunctions)[number];
const SECRET = "of-rivals-alone";

beforeEach(() => vi.useFakeTimers()); // nothing is delivered
afterEach(() => vi.useRealTimers());

/** A product where the tenant `rival` has one of everything; and the names of it all. */
async function rivalry() {
  const product = await deployment();
  const { t, user, service } = product;
  await product.apply([LIFE[0]!]);
  await t.mutation(internal.tenancy.seed, { tenants: [{ tenant_id: SECRET }] });
  const mallory = user("mallory");
  const own = { tenant_id: "rival", node_id: "n2" };
  const { enrolment_token } = await mallory.action(api.nodes.renewToken, own);
  const secret_hash = await hashOf(enrolment_token.split(".")[2]!);
  let key = await newKey();
  while (!isName(key.key_id)) key = await newKey(); // of 32 thumbprints one begins with no letter or digit
  await service({ node_id: "n2" }).mutation(api.registry.redeem, { node_id: "n2", secret_hash, key });
  const theirs = { tenant_id: "rival", node_id: "n2", job_id: `job-${SECRET}`, workspace_id: `w-${SECRET}` };
  const command = { execution_profile: {}, resource_shape: {}, workload: { note: SECRET } };
  const { command_id } = await mallory.mutation(api.commands.submitJob, { ...theirs, command });
  const told = update(1, "running", { ...theirs, job_id: `old-${SECRET}`, message: SECRET });
  await product.apply([told, { ...told, job_id: `other-${SECRET}` }], { node_id: "n2" });
  const created = await mallory.action(api.serviceTokens.create, {
    tenant_id: "rival",
    name: SECRET,
    scopes: ["jobs:read"],
    days: 1,
  });
  const paginationOpts = { numItems: 1, cursor: null };
  const { continueCursor } = await mallory.query(api.jobs.list, { tenant_id: "rival", paginationOpts });
  const names = [
    ...["rival", "n2", theirs.job_id, told.job_id, theirs.workspace_id, command_id, created.token_id],
    ...[await hashOf(created.token), secret_hash, key.key_id],
  ];
  return { product, names, cursor: continueCursor };
}

/** All that is the tenant's, or its node's. */
async function belongings({ t }: Deployment): Promise<string> {
  const tables = ["memberships", "nodes", "nodeRegistry", "nodeStatuses", "nodeTenants", "serviceTokens"] as const;
  const more = ["nodeEpochs", "jobs", "jobEvents", "commands", "usageChanges", "workspaces", "auditLog"] as const;
  const rows = await t.run(async (ctx) =>
    Promise.all([...tables, ...more].map((table) => ctx.db.query(table).collect() as Promise<Row[]>)),
  );
  const theirs = ({ tenant_id, node_id, owner }: Row): boolean =>
    tenant_id === undefined ? node_id === "n2" || owner === "rival" : ["rival", SECRET].includes(tenant_id);
  return JSON.stringify(rows.flat().filter(theirs));
}
type Row = { tenant_id?: string; node_id?: string; owner?: string };

function run(as: Caller, { path, type }: Function, args: Record<string, unknown>): Promise<unknown> {
  const caller = as[type] as unknown as (reference: object, given: object) => Promise<unknown>;
  return caller(makeFunctionReference(path), args);
}

/** What an outsider sees of a call: its answer or refusal, with `name` and all that differs from call to call taken out. */
async function seen(called: Promise<unknown>, name: string): Promise<string> {
  const told = await called.then(
    (value) => ({ value }),
    (error: unknown) => {
      if (error instanceof ConvexError) return { refusal: error.data as unknown };
      throw error;
    },
  );
  return JSON.stringify(told)
    .replaceAll(name, "NAME")
    .replace(/byoc[^"]*|[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[^"]*|st-[0-9a-f]{16}/g, "…");
}

function wellFormed({ args }: Function, tenant_id = "acme"): Record<string, unknown> {
  const known: Record<string, unknown> = { ...ARGUMENTS, tenant_id };
  return Object.fromEntries(args.map((name) => [name, known[name]]));
}

const isText = ({ fieldType: { type, value } }: Argument): boolean =>
  type === "string" || (type === "union" && (value as { type: string }[]).every((one) => one.type === "string"));

const texts = publicFunctions.flatMap((one) =>
  Object.entries(one.validators)
    .filter(([name, argument]) => isText(argument) && name !== "tenant_id")
    .map(([name]) => [one.path, name, one] as const),
);

// Names of nodes are everybody's: that one is taken must show.
const TELLING = new Set(["nodes:create node_id"]);
const ofUsers = texts.filter(([path, name]) => !isOfAdapter(path) && !TELLING.has(`${path} ${name}`));

test("the matrix is not empty", () => {
  expect(ofUsers.length).toBeGreaterThan(25);
  expect(texts.length - ofUsers.length).toBeGreaterThan(8);
});

test.each(ofUsers)("%s: nothing of others can be named in %s", async (_, argument, one) => {
  let rivals = await rivalry();
  const call = async (given: string) => {
    if (one.type !== "query") rivals = await rivalry();
    const { product } = rivals;
    const before = await belongings(product);
    const answer = await seen(run(product.user("alice"), one, { ...wellFormed(one), [argument]: given }), given);
    expect(answer).not.toContain(SECRET);
    expect(await belongings(product)).toBe(before);
    return answer;
  };
  const missing = await call("no-such-thing");
  for (let index = 0; index < rivals.names.length; index += 1) {
    expect(await call(rivals.names[index]!)).toBe(missing);
  }
});

const ofAdapter = texts.filter(([path]) => isOfAdapter(path));

test.each(ofAdapter)("%s: a node changes nothing of others by naming it in %s", async (_, argument, one) => {
  const { product, names } = await rivalry();
  const before = await belongings(product);
  for (const name of names) {
    await seen(run(product.service(), one, { ...wellFormed(one, "rival"), [argument]: name }), name);
    expect(await belongings(product)).toBe(before);
  }
});

test("an update changes nothing of others, whatever of theirs stands where in it", async () => {
  const { product, names } = await rivalry();
  const before = await belongings(product);
  for (const field of ["tenant_id", "node_id", "workspace_id", "job_id", "trace_id"] as const) {
    for (const name of names) {
      const updates = [{ ...update(1, "failed"), tenant_id: "rival", [field]: name }];
      const { outcomes } = await product.service().mutation(api.projections.applyProjections, { updates });
      expect(outcomes).toMatchObject([{ outcome: "rejected", code: "forbidden" }]);
    }
  }
  expect(await belongings(product)).toBe(before);
});

const paged = publicFunctions.filter(({ args }) => args.includes("paginationOpts"));

test.each(paged)("$path: a cursor of others opens nothing of theirs", async (one) => {
  const { product, cursor } = await rivalry();
  const args = { ...wellFormed(one), state: undefined, paginationOpts: { numItems: 50, cursor } };
  const read = run(product.user("alice"), one, JSON.parse(JSON.stringify(args)) as Record<string, unknown>);
  expect(JSON.stringify(await read.catch((error: unknown) => String(error)))).not.toContain(SECRET);
});

/** Values that no argument of this kind may have. */
function strangers({ fieldType: { type } }: Argument): unknown[] {
  const others: Record<string, unknown> = { string: "text", number: 7, array: [], object: {}, null: null, boolean: true };
  if (type === "union") return [7, null, true]; // of texts and objects
  return Object.entries(others).flatMap(([kind, value]) =>
    kind === type || (kind === "object" && (type === "record" || type === "object")) ? [] : [value],
  );
}

const faults = publicFunctions.flatMap((one) => [
  ...Object.entries(one.validators).flatMap(([name, argument]) => [
    ...strangers(argument).map((value) => [one.path, name, JSON.stringify(value), one, { [name]: value }] as const),
    ...(argument.optional ? [] : ([[one.path, name, "nothing", one, { [name]: undefined }]] as const)),
  ]),
  [one.path, "surprise", "1", one, { surprise: 1 }] as const,
]);

test.each(faults)("%s: %s is not %s", async (path, _, __, one, wrong) => {
  const product = await deployment();
  const given = Object.entries({ ...wellFormed(one), ...wrong }).filter(([, value]) => value !== undefined);
  const as = isOfAdapter(path) ? product.service() : product.user("alice");
  const called = run(as, one, Object.fromEntries(given));
  // By the validators, or by the function where the harness's do not look into records.
  const error: unknown = await called.then(() => "no error", (thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(Error);
  if (error instanceof ConvexError) expect(error.data).toMatchObject({ code: "invalid" });
  expect(await product.rows("auditLog")).toEqual([]);
});
