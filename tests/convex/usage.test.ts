import fc from "fast-check";
import { expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import { NOTHING, plus, usageOf } from "../../convex/usageFields";
import { deployment, errorCode, update, type Deployment } from "./fixtures";
import { dealt, EPOCHS, lives } from "./stories";

const summary = (product: Deployment, fields: object = {}) =>
  product.user("bob").query(api.usage.summary, { tenant_id: "acme", ...fields });
const ran = (seconds: number, nodes: string[]) => ({
  timings: { started: "2026-03-01T12:00:00Z", ended: new Date(Date.UTC(2026, 2, 1, 12) + seconds * 1000).toISOString() },
  scheduler: { job_id: "17", nodes },
});

test("a summary counts jobs, their ends and their node hours per workspace, before and after it is summed up", async () => {
  const product = await deployment();
  await product.apply([
    update(1, "succeeded", { job_id: "a", ...ran(3600, ["c1", "c2"]) }),
    update(1, "succeeded", { job_id: "b", ...ran(1800, ["c1"]) }),
    update(1, "failed", { job_id: "c", ...ran(900, ["c1"]) }),
    update(1, "cancelled", { job_id: "d" }),
    update(1, "running", { job_id: "e" }),
    update(1, "queued", { job_id: "f", workspace_id: "w2" }),
  ]);
  const expected = [
    {
      ...{ workspace_id: "w1", jobs: 5, succeeded: 2, failed: 1, cancelled: 1 },
      ...{ node_hours: 2.75, success_rate: 2 / 3 },
    },
    { workspace_id: "w2", jobs: 1, succeeded: 0, failed: 0, cancelled: 0, node_hours: 0, success_rate: null },
  ];
  expect(await summary(product)).toEqual({ by_workspace: expected, complete: true });
  await product.t.mutation(internal.usage.sumUp, {});
  expect(await product.rows("usageChanges")).toEqual([]);
  expect(await summary(product)).toEqual({ by_workspace: expected, complete: true });
  await product.apply([update(2, "succeeded", { job_id: "e", ...ran(900, ["c1"]) })]);
  const [changed] = (await summary(product, { workspace_id: "w1" })).by_workspace;
  expect(changed).toMatchObject({ jobs: 5, succeeded: 3, node_hours: 3, success_rate: 0.75 });
  const today = new Date().toISOString();
  expect((await summary(product, { since: today, until: today })).by_workspace).toHaveLength(2);
  expect((await summary(product, { until: "2026-01-01T00:00:00Z" })).by_workspace).toEqual([]);
  expect(await errorCode(summary(product, { since: "today" }))).toBe("invalid");
  expect((await product.user("mallory").query(api.usage.summary, { tenant_id: "rival" })).by_workspace).toEqual([]);
  const [mine] = await product.user("bob").query(api.tenancy.mine, {});
  expect(mine).toEqual({ tenant_id: "acme", role: "member", workspaces: ["w1", "w2"] });
});

test("the sums are those over all jobs, whatever arrives how, and summed up when", async () => {
  await fc.assert(
    fc.asyncProperty(
      lives.chain((all) => dealt(all.flatMap(({ told }) => told))),
      fc.infiniteStream(fc.boolean()),
      async (calls, summing) => {
        const product = await deployment();
        for (const epoch of EPOCHS) if (epoch !== undefined) await product.accept(epoch);
        for (const call of calls) {
          await product.apply(call);
          if (summing.next().value) await product.t.mutation(internal.usage.sumUp, {});
        }
        const jobs = await product.rows("jobs");
        const { jobs: count, succeeded, failed, cancelled } = jobs.map(usageOf).reduce(plus, NOTHING);
        const { by_workspace } = await summary(product);
        if (jobs.length === 0) expect(by_workspace).toEqual([]);
        else expect(by_workspace).toMatchObject([{ jobs: count, succeeded, failed, cancelled }]);
      },
    ),
    { numRuns: 40 },
  );
});

test("no more than 500 changes are summed up at once, and all of them in the end", async () => {
  const product = await deployment();
  const change = { tenant_id: "acme", workspace_id: "w1", day: "2026-03-01", ...NOTHING, jobs: 1 };
  await product.t.run(async (ctx) => {
    for (let index = 0; index < 1_100; index += 1) await ctx.db.insert("usageChanges", change);
    await ctx.db.insert("workspaces", { tenant_id: "acme", workspace_id: "w1" });
  });
  await product.t.mutation(internal.usage.sumUp, {});
  expect(await product.rows("usageChanges")).toHaveLength(600);
  expect((await summary(product)).by_workspace).toMatchObject([{ jobs: 1_100 }]);
  await product.t.finishAllScheduledFunctions(() => {});
  expect(await product.rows("usageChanges")).toEqual([]);
  expect(await product.rows("usageDays")).toMatchObject([{ jobs: 1_100 }]);
});
