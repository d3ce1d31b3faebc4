import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import crons from "../../convex/crons";
import { deployment, errorCode, update, type Deployment } from "./fixtures";

const DAY_MS = 86_400_000;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("refused")));
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.unstubAllEnvs();
});

type Table = "jobEvents" | "commands" | "auditLog";

async function sweep(product: Deployment, table: Table) {
  await product.t.mutation(internal.retention.sweep, { table });
  await product.t.finishAllScheduledFunctions(vi.runAllTimers);
}

function daysLater(days: number): void {
  vi.setSystemTime(Date.now() + days * DAY_MS);
}

test("timelines of jobs that ended long ago go in batches, the jobs stay, and of live jobs nothing goes", async () => {
  const product = await deployment();
  const lives = (job_id: string, end: "succeeded" | "running") => [
    ...Array.from({ length: 99 }, (_, index) => update(index + 1, "queued", { job_id, occurred_at: NOON })),
    update(100, end, { job_id, occurred_at: NOON }),
  ];
  for (const job_id of ["live-1", "over-1", "over-2", "over-3"]) {
    await product.apply(lives(job_id, job_id.startsWith("live") ? "running" : "succeeded"));
  }
  daysLater(91);
  await product.apply(lives("over-4", "succeeded"));
  await product.t.mutation(internal.retention.sweep, { table: "jobEvents" });
  expect((await product.rows("jobEvents")).length).toBeGreaterThan(300); // one run is bounded
  await product.t.finishAllScheduledFunctions(vi.runAllTimers);
  const left = new Set((await product.rows("jobEvents")).map(({ job_id }) => job_id));
  expect(left).toEqual(new Set(["live-1", "over-4"]));
  expect(await product.rows("jobEvents")).toHaveLength(200);
  expect(await product.rows("jobs")).toHaveLength(5);
});

const NOON = "2026-03-01T12:00:00.000Z";

test("a job that ended a moment ago keeps the timeline of all its years", async () => {
  const product = await deployment();
  await product.apply([update(1, "running")]);
  daysLater(800);
  await product.apply([update(2, "succeeded")]);
  await sweep(product, "jobEvents");
  expect(await product.rows("jobEvents")).toHaveLength(2);
  daysLater(91);
  await sweep(product, "jobEvents");
  expect(await product.rows("jobEvents")).toEqual([]);
});

test("commands go with their job's end, one without a verdict never", async () => {
  const product = await deployment();
  const asked = { tenant_id: "acme", workspace_id: "w1", node_id: "n1" };
  const command = { execution_profile: {}, resource_shape: {}, workload: {} };
  for (const job_id of ["pending", "refused"]) {
    await product.user("bob").mutation(api.commands.submitJob, { ...asked, job_id, command });
  }
  await product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "refused" });
  daysLater(91);
  await product.t.mutation(internal.retention.sweep, { table: "commands" });
  expect((await product.rows("commands")).map(({ job_id }) => job_id)).toEqual(["pending"]);
});

test("audit rows go after the days that the deployment says", async () => {
  vi.stubEnv("BYOC_KEEP_AUDIT_DAYS", "7");
  const product = await deployment();
  await product.apply([update(1, "running")]);
  daysLater(8);
  await product.apply([update(2, "running")]);
  await sweep(product, "auditLog");
  expect(await product.audited()).toEqual([`acme projection.applied ${update(2, "running").projection_id}`]);
});

test.each(["0", "-1", "soon", "1.5"])("%j is no number of days: nothing is removed", async (days) => {
  vi.stubEnv("BYOC_KEEP_AUDIT_DAYS", days);
  const product = await deployment();
  await product.apply([update(1, "running")]);
  daysLater(1000);
  expect(await errorCode(product.t.mutation(internal.retention.sweep, { table: "auditLog" }))).toBe("not_configured");
  expect(await product.audited()).toHaveLength(1);
});

test("every batch keeps within a transaction, whatever the size of its documents", async () => {
  const product = await deployment();
  const life = Array.from({ length: 100 }, (_, index) =>
    update(1, "succeeded", { job_id: `j${index}`, message: "x".repeat(64 * 1024 - 500), occurred_at: NOON }),
  );
  await product.apply(life);
  const where = { tenant_id: "acme", workspace_id: "w1", node_id: "n1", body: "x".repeat(256 * 1024) };
  const decided = { state: "accepted" as const, round: 1, attempts: 1, in_doubt: 0, created_at: NOON };
  for (let index = 0; index < 50; index += 1) {
    const command = { ...where, ...decided, operation: "submit" as const, job_id: `j${index}`, command_id: `c${index}` };
    await product.t.run((ctx) => ctx.db.insert("commands", command));
  }
  daysLater(91);
  for (const table of ["jobEvents", "commands"] as const) {
    await sweep(product, table);
    expect(await product.rows(table)).toEqual([]);
  }
});

test("crons run all of it", () => {
  const { crons: scheduled } = crons as unknown as { crons: Record<string, { name: string; args: unknown[] }> };
  const runs = Object.values(scheduled).map(({ name, args }) => [name, args[0]]);
  expect(runs).toEqual([
    ["usage:sumUp", {}],
    ...["jobEvents", "commands", "auditLog"].map((table) => ["retention:sweep", { table }]),
  ]);
});
