// No public function lets a stranger in: the functions are found, not listed, so a new one cannot be forgotten.
import { makeFunctionReference } from "convex/server";
import { ConvexError } from "convex/values";
import { expect, test } from "vitest";
import { deployment, errorCode, LIFE } from "./fixtures";
import { call, isOfAdapter, publicFunctions } from "./surface";

const sources = import.meta.glob<string>("../../convex/*.ts", { eager: true, query: "?raw", import: "default" });

/** How a call ended: `done`, or the code of its refusal; anything else fails the test. */
function ending(called: Promise<unknown>): Promise<string> {
  return called.then(
    () => "done",
    (error: unknown) => {
      if (error instanceof ConvexError) return (error.data as { code: string }).code;
      throw error;
    },
  );
}

const paths = publicFunctions.map(({ path }) => path).sort();
const own = ["tenancy:mine"];
const users = paths.filter((path) => !isOfAdapter(path) && !own.includes(path));
const adapters = paths.filter(isOfAdapter);
const auditing = ["audit:list"];
const reading = users.filter(
  (path) => publicFunctions.find((one) => one.path === path)!.type === "query" && !auditing.includes(path),
);
const asking = ["commands:cancelJob", "commands:submitJob"];
const managing = users.filter((path) => ![...reading, ...asking].includes(path));

test("the public functions are these", () => {
  expect(reading).toEqual([
    ...["commands:list", "commands:submitted", "jobs:attempts", "jobs:get", "jobs:list", "jobs:timeline"],
    ...["nodes:get", "nodes:list", "nodes:offers", "serviceTokens:list", "usage:summary"],
  ]);
  expect(managing).toEqual([
    ...auditing,
    ...["nodes:acceptShare", "nodes:create", "nodes:drain", "nodes:leaveShare", "nodes:renewToken", "nodes:resume"],
    ...["nodes:revoke", "nodes:share", "nodes:unshare", "serviceTokens:create", "serviceTokens:revoke"],
  ]);
  expect(paths.filter((path) => asking.includes(path))).toEqual(asking);
  expect(paths.filter((path) => own.includes(path))).toEqual(own);
  expect(adapters).toEqual([
    ...["nodes:recordHeartbeat", "projections:applyProjections", "registry:addKey", "registry:node"],
    ...["registry:productKeys", "registry:redeem", "registry:retireKey", "registry:revoke", "registry:serviceToken"],
  ]);
});

test.each(paths)("%s needs a token", async (path) => {
  const { t } = await deployment();
  expect(await errorCode(call(t, path, "acme"))).toBe("unauthenticated");
});

test.each(users)("%s answers strangers as if nothing were there", async (path) => {
  const { apply, user, service } = await deployment();
  await apply([LIFE[0]!]);
  const strangers = [
    call(user("mallory"), path, "acme"),
    call(user("alice"), path, "rival"),
    call(user("alice"), path, "no-such-tenant"),
    call(user("alice"), path, ""),
    call(user("alice", "https://elsewhere.test"), path, "acme"),
    call(service(), path, "acme"),
  ];
  const codes = await Promise.all(strangers.map((stranger) => errorCode(stranger)));
  expect(codes).toEqual(strangers.map(() => "not_found"));
});

test.each(reading)("%s serves members", async (path) => {
  const { apply, user } = await deployment();
  await apply([LIFE[0]!]);
  for (const member of ["alice", "bob"]) await expect(call(user(member), path, "acme")).resolves.toBeDefined();
});

test.each(managing)("%s is for owners and admins", async (path) => {
  const { user, rows } = await deployment();
  const before = JSON.stringify([await rows("nodeRegistry"), await rows("serviceTokens"), await rows("auditLog")]);
  expect(await errorCode(call(user("bob"), path, "acme"))).toBe("forbidden");
  const after = JSON.stringify([await rows("nodeRegistry"), await rows("serviceTokens"), await rows("auditLog")]);
  expect(after).toBe(before);
  // Whatever becomes of it, the door opened: what an owner is refused is the matter itself.
  expect(await ending(call(user("alice"), path, "acme"))).not.toBe("forbidden");
});

test.each(adapters)("%s is closed to users, to other scopes and to tokens of no node", async (path) => {
  const { user, service } = await deployment();
  const strangers = [
    user("alice"),
    service({ issuer: "https://product.test" }),
    service({ scope: "jobs:submit" }),
    service({ scope: undefined }),
    service({ node_id: undefined }),
  ];
  const codes = await Promise.all(strangers.map((stranger) => errorCode(call(stranger, path, "acme"))));
  expect(codes).toEqual(strangers.map(() => "forbidden"));
});

const aboutNodes = adapters.filter((path) => publicFunctions.find((one) => one.path === path)!.args.includes("node_id"));

test.each(aboutNodes)("%s: a token of one node says nothing about another, known or not", async (path) => {
  const { service } = await deployment();
  const refusals = ["n2", "no-such-node"].map((node_id) =>
    call(service(), path, "acme", { node_id }).then(
      () => "done",
      (error: { data: unknown }) => error.data,
    ),
  );
  const [foreign, missing] = await Promise.all(refusals);
  expect(foreign).toEqual(missing);
  expect(foreign).toMatchObject({ code: "forbidden" });
});

test("a node of others is as missing as one of nobody", async () => {
  const { user } = await deployment();
  const answers = ["n2", "no-such-node"].map((node_id) =>
    call(user("alice"), "nodes:get", "acme", { node_id }).catch((error: { data: unknown }) => error.data),
  );
  const [foreign, missing] = await Promise.all(answers);
  expect(foreign).toEqual(missing);
  expect(foreign).toMatchObject({ code: "not_found" });
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

test("only secretAction draws secrets, as what queries and mutations draw is seeded", () => {
  const drawing = /getRandomValues|randomUUID|generateKey|Math\.random|\bnewSecret\b/;
  const holders = Object.entries(sources).filter(([, source]) => drawing.test(source));
  expect(holders.map(([path]) => path.split("/").at(-1))).toEqual(["functions.ts", "names.ts", "secrets.ts"]);
  const [[, door]] = holders as [[string, string]];
  const uses = [...door.matchAll(/newSecret\(\)/g)].map(({ index }) => index);
  const action = door.indexOf("export function secretAction");
  expect(uses).toHaveLength(1);
  expect(door.slice(action, uses[0]).match(/^export /gm)).toHaveLength(1);
});
