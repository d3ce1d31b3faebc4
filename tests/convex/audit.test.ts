import { expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import type { Doc } from "../../convex/_generated/dataModel";
import { deployment, LIFE, update } from "./fixtures";

const ACTOR = "https://adapter.test|adapter";

async function audited(rows: (table: "auditLog") => Promise<unknown[]>) {
  const log = (await rows("auditLog")) as Doc<"auditLog">[];
  return log.map(({ tenant_id, actor, action, subject, code }) => ({ tenant_id, actor, action, subject, code }));
}

test("what is applied and what is refused names its actor; repetition and lateness change nothing", async () => {
  const { apply, rows } = await deployment();
  await apply([LIFE[0]!, LIFE[2]!, LIFE[0]!, LIFE[1]!, update(3, "queued", { attempt: 2 })]);
  const row = { tenant_id: "acme", actor: ACTOR, code: undefined };
  expect(await audited(rows)).toEqual([
    { ...row, action: "projection.applied", subject: LIFE[0]!.projection_id },
    { ...row, action: "projection.applied", subject: LIFE[2]!.projection_id },
    { ...row, action: "projection.rejected", subject: LIFE[2]!.projection_id, code: "seq_conflict" },
  ]);
});

test("a node writes nothing into the log of a tenant that it does not serve", async () => {
  const { apply, rows } = await deployment();
  await apply([update(1, "accepted", { tenant_id: "rival" })]);
  expect(await audited(rows)).toMatchObject([{ tenant_id: undefined, actor: ACTOR, code: "forbidden" }]);
});

test("the row vanishes with the change when the transaction fails", async () => {
  const { t, service, rows } = await deployment();
  const { applyProjections } = await import("../../convex/projections");
  const handler = (applyProjections as unknown as { _handler: (ctx: unknown, args: unknown) => Promise<unknown> })
    ._handler;
  const failing = service().mutation(async (ctx) => {
    await handler(ctx, { updates: [LIFE[0]!] });
    expect(await ctx.db.query("jobs").collect()).toHaveLength(1);
    expect(await ctx.db.query("auditLog").collect()).toHaveLength(1);
    throw new Error("after the last write");
  });
  await expect(failing).rejects.toThrow("after the last write");
  expect([await rows("jobs"), await rows("jobEvents"), await rows("auditLog")]).toEqual([[], [], []]);
  expect(await t.run((ctx) => ctx.db.query("tenants").collect())).toHaveLength(2);
});

test("the deploy key's declarations are logged once", async () => {
  const { t, rows } = await deployment();
  const declared = {
    memberships: [{ tenant_id: "acme", token_identifier: "https://product.test|carol", role: "owner" }],
    nodes: [{ node_id: "n1", tenant_ids: ["rival"], owner: "rival" }],
  };
  expect(await t.mutation(internal.tenancy.seed, declared)).toEqual({ changed: 4 });
  expect(await t.mutation(internal.tenancy.seed, declared)).toEqual({ changed: 0 });
  expect((await audited(rows)).map(({ tenant_id, actor, action }) => [tenant_id, actor, action])).toEqual([
    ["acme", "admin", "membership.declared"],
    ["acme", "admin", "node.withdrawn"],
    ["rival", "admin", "node.declared"],
    ["rival", "admin", "node.owner_declared"],
  ]);
});

test("owners read their log, the newest first and in pages; it holds nothing of others", async () => {
  const { apply, user } = await deployment();
  await apply([LIFE[0]!, LIFE[1]!, LIFE[2]!]);
  await apply([update(1, "accepted", { tenant_id: "rival" })]);
  const page = (cursor: string | null) =>
    user("alice").query(api.audit.list, { tenant_id: "acme", paginationOpts: { numItems: 2, cursor } });
  const first = await page(null);
  const second = await page(first.continueCursor);
  expect([first.isDone, second.isDone]).toEqual([false, true]);
  const rows = [...first.page, ...second.page];
  expect(rows.map(({ action, subject }) => [action, subject])).toEqual(
    [LIFE[2]!, LIFE[1]!, LIFE[0]!].map(({ projection_id }) => ["projection.applied", projection_id]),
  );
  expect(Object.keys(rows[0]!).sort()).toEqual(["action", "actor", "at", "subject"]);
});
