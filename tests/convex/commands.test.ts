// What the mutations of users store, and what they refuse, before anything is sent.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import { deployment, errorCode, update, type Deployment } from "./fixtures";

const COMMAND = {
  execution_profile: { queue_name: "default" },
  resource_shape: { cpu: 1, memory_mib: 256, walltime_seconds: 60 },
  workload: { kind: "container", image: "localhost/byoc/demo:1", argv: ["/bin/true"] },
};
const ASKED = { tenant_id: "acme", workspace_id: "w1", node_id: "n1", command: COMMAND };

beforeEach(() => vi.useFakeTimers()); // nothing is delivered
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

const submit = (product: Deployment, fields: object = {}, who = "bob") =>
  product.user(who).mutation(api.commands.submitJob, { ...ASKED, ...fields });
const everything = async ({ rows }: Deployment) =>
  JSON.stringify([await rows("commands"), await rows("jobs"), await rows("jobEvents"), await rows("auditLog")]);

test("a repeated submission is the same one, another under its name a conflict", async () => {
  const product = await deployment();
  const first = await submit(product, { job_id: "j1" });
  const stored = await everything(product);
  expect(await submit(product, { job_id: "j1", command: JSON.stringify(COMMAND) })).toEqual(first);
  for (const other of [{ workspace_id: "w2" }, { command: { ...COMMAND, resource_shape: { cpu: 2 } } }]) {
    expect(await errorCode(submit(product, { job_id: "j1", ...other }))).toBe("conflict");
  }
  expect(await errorCode(submit(product, { job_id: "j1" }, "alice"))).toBe("conflict");
  expect(await everything(product)).toBe(stored);
});

test("a job that a node has told of keeps its name", async () => {
  const product = await deployment();
  await product.apply([update(1, "running")]);
  expect(await errorCode(submit(product, { job_id: "j1" }))).toBe("conflict");
});

test("names are minted; what was submitted can be read, and submitted again", async () => {
  const product = await deployment();
  const [one, other] = [await submit(product), await submit(product)];
  expect(one.job_id).toMatch(/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/);
  expect(one.command_id).toMatch(/^[A-Za-z0-9._~-]{16,128}$/);
  expect(new Set([one.job_id, other.job_id, one.command_id, other.command_id]).size).toBe(4);
  const about = { tenant_id: "acme", job_id: one.job_id };
  const submitted = await product.user("alice").query(api.commands.submitted, about);
  expect({ ...submitted, command: JSON.parse(submitted!.command) as unknown }).toEqual({
    ...{ workspace_id: "w1", node_id: "n1" },
    command: COMMAND,
  });
  const { job_id } = await submit(product, { ...submitted, job_id: "again" });
  expect(await product.user("bob").query(api.commands.submitted, { tenant_id: "acme", job_id })).toEqual(submitted);
  await product.apply([update(1, "running")]);
  expect(await product.user("bob").query(api.commands.submitted, { tenant_id: "acme", job_id: "j1" })).toBeNull();
});

test("command, job, timeline, usage and audit row are one transaction", async () => {
  const product = await deployment();
  const before = await everything(product);
  const { submitJob } = await import("../../convex/commands");
  const { _handler } = submitJob as unknown as { _handler: (ctx: unknown, args: unknown) => Promise<unknown> };
  const failing = product.user("bob").mutation(async (ctx) => {
    await _handler(ctx, ASKED);
    expect(await ctx.db.query("commands").collect()).toHaveLength(1);
    throw new Error("after the last write");
  });
  await expect(failing).rejects.toThrow("after the last write");
  expect(await everything(product)).toBe(before);
  await submit(product, { job_id: "j1" });
  expect([(await product.rows("usageChanges")).length, await product.audited()]).toEqual([
    1,
    ["acme job.submit_requested j1"],
  ]);
});

test.each([
  ["a member it does not know", { command: { ...COMMAND, tenant_id: "rival" } }, "command.tenant_id"],
  ["a shape that is none", { command: { ...COMMAND, resource_shape: [] } }, "command.resource_shape"],
  ["no workload", { command: { execution_profile: {}, resource_shape: {} } }, "command.workload"],
  ["a deadline that is none", { command: { ...COMMAND, deadline: "soon" } }, "command.deadline"],
  ["a deadline that has passed", { command: { ...COMMAND, deadline: "2020-01-01T00:00:00Z" } }, "command.deadline"],
  ["text that is no JSON", { command: "{" }, "command"],
  ["text of another thing", { command: "[]" }, "command"],
  ["half a character", { command: { ...COMMAND, workload: { text: "\ud800" } } }, "command"],
  ["an integer that is not exact", { command: { ...COMMAND, workload: { n: 2 ** 60 } } }, "command"],
  ["too much", { command: { ...COMMAND, workload: { text: "ä".repeat(140_000) } } }, "command"],
  ["a name with a space", { job_id: "a b" }, "job_id"],
  ["a workspace without a name", { workspace_id: "" }, "workspace_id"],
])("%s is refused by name", async (_, fields, name) => {
  const product = await deployment();
  const before = await everything(product);
  const error = await submit(product, fields).catch((thrown: unknown) => thrown);
  expect((error as { data: object }).data).toMatchObject({ code: "invalid" });
  expect((error as { data: { message: string } }).data.message.startsWith(name)).toBe(true);
  expect(await everything(product)).toBe(before);
});

test.each(["", "x".repeat(501), "bell \u0007"])("a cancel for the reason %j is refused", async (reason) => {
  const product = await deployment();
  await product.apply([update(1, "running")]);
  const cancel = product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "j1", reason });
  expect(await errorCode(cancel)).toBe("invalid");
  expect(await product.rows("commands")).toEqual([]);
});

test.each(["BYOC_ADAPTER_URL", "BYOC_COMMAND_ISSUER", "BYOC_COMMAND_KEY", "BYOC_SIGNING_KEY"])(
  "without %s nothing is taken",
  async (variable) => {
    const product = await deployment();
    await product.apply([update(1, "running")]);
    vi.stubEnv(variable, "");
    expect(await errorCode(submit(product))).toBe("not_configured");
    const cancel = product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "j1" });
    expect(await errorCode(cancel)).toBe("not_configured");
    expect(await product.rows("commands")).toEqual([]);
  },
);

test("a role that the product does not know asks for nothing", async () => {
  const product = await deployment();
  const carol = { tenant_id: "acme", token_identifier: "https://product.test|carol", role: "viewer" };
  await product.t.mutation(internal.tenancy.seed, { memberships: [carol] });
  expect(await errorCode(submit(product, {}, "carol"))).toBe("forbidden");
});

const cancelTasks = (product: Deployment, ...tasks: { first: number; last: number }[]) =>
  product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "j1", tasks });

test("tasks of an array are cancelled by themselves, and the job as a whole still after them", async () => {
  const product = await deployment();
  await product.apply([update(1, "running")]);
  const first = await cancelTasks(product, { first: 0, last: 9 });
  expect(await cancelTasks(product, { first: 0, last: 9 })).toEqual(first);
  const second = await cancelTasks(product, { first: 20, last: 20 });
  const whole = await product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "j1" });
  const stored = await product.rows("commands");
  expect(stored.map(({ command_id }) => command_id)).toEqual([first, second, whole].map((each) => each.command_id));
  expect(stored.map(({ body }) => (JSON.parse(body) as { tasks?: unknown }).tasks)).toEqual([
    [{ first: 0, last: 9 }],
    [{ first: 20, last: 20 }],
    undefined,
  ]);
});

test.each([
  [[]],
  [[{ first: 2, last: 1 }]],
  [[{ first: -1, last: 1 }]],
  [[{ first: 0.5, last: 1 }]],
  [Array.from({ length: 1_001 }, () => ({ first: 0, last: 0 }))],
])("tasks %# are refused", async (tasks) => {
  const product = await deployment();
  await product.apply([update(1, "running")]);
  expect(await errorCode(cancelTasks(product, ...tasks))).toBe("invalid");
  expect(await product.rows("commands")).toEqual([]);
});

test("tasks of a job that no node has taken yet are not cancelled by themselves", async () => {
  const product = await deployment();
  await submit(product, { job_id: "j1" });
  expect(await errorCode(cancelTasks(product, { first: 0, last: 0 }))).toBe("conflict");
  expect(await product.rows("commands")).toHaveLength(1);
});

test("there is always room to cancel the whole job, however often tasks of it were", async () => {
  const product = await deployment();
  await product.apply([update(1, "running")]);
  for (let number = 0; number < 99; number++) await cancelTasks(product, { first: number, last: number });
  expect(await errorCode(cancelTasks(product, { first: 99, last: 99 }))).toBe("conflict");
  const whole = await product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "j1" });
  expect(await product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "j1" })).toEqual(whole);
});
