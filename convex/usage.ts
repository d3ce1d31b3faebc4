// What the jobs of a workspace came to, per day, without reading a job.
//
// A counter that every update changes would be hot: all updates of a workspace would conflict. So whoever writes a job
// appends the difference it makes, and a cron sums the differences up, alone. A summary adds both, so it is exact at any
// time. (@convex-dev/aggregate would count in the writers' transaction, in a tree whose root they share.)
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { internal } from "./_generated/api";
import { internalMutation, type MutationCtx, type QueryCtx } from "./_generated/server";
import { isUtcTime } from "./checks";
import { refusal, tenantQuery, type TenantCtx } from "./functions";
import { counted, isNothing, minus, NOTHING, plus, usageOf, type Usage } from "./usageFields";

const MAX_CHANGES = 500;
// 100 workspaces a year, or one for a century; a summary says when it was cut.
const MAX_ROWS = 8_000;
const MAX_WORKSPACES = 1_000;

/** Notes what a job, written in this transaction, counts for more or less than before; `since` is when it was new. */
export async function count(
  ctx: MutationCtx,
  before: Doc<"jobs"> | null,
  after: { tenant_id: string; workspace_id: string; state: string },
): Promise<void> {
  const { tenant_id, workspace_id } = after;
  const change = minus(usageOf(after), usageOf(before));
  if (isNothing(change)) return;
  const day = dayOf(before?._creationTime ?? Date.now());
  await ctx.db.insert("usageChanges", { tenant_id, workspace_id, day, ...change });
  if (before === null) await know(ctx, tenant_id, workspace_id);
}

async function know(ctx: MutationCtx, tenant_id: string, workspace_id: string): Promise<void> {
  const known = await ctx.db
    .query("workspaces")
    .withIndex("by_tenant_workspace", (q) => q.eq("tenant_id", tenant_id).eq("workspace_id", workspace_id))
    .unique();
  if (known === null) await ctx.db.insert("workspaces", { tenant_id, workspace_id });
}

/** Sums up the oldest changes, at most 500 at once, and comes back for more. */
export const sumUp = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx): Promise<null> => {
    const changes = await ctx.db.query("usageChanges").withIndex("by_creation_time").take(MAX_CHANGES);
    const sums = new Map<string, Omit<Doc<"usageChanges">, "_id" | "_creationTime">>();
    for (const { _id, _creationTime, ...change } of changes) {
      const key = JSON.stringify([change.tenant_id, change.workspace_id, change.day]);
      const sum = sums.get(key);
      sums.set(key, { ...change, ...plus(sum ?? NOTHING, change) });
      await ctx.db.delete(_id);
    }
    for (const sum of sums.values()) {
      const { tenant_id, workspace_id, day } = sum;
      const stored = await ctx.db
        .query("usageDays")
        .withIndex("by_tenant_workspace_day", (q) =>
          q.eq("tenant_id", tenant_id).eq("workspace_id", workspace_id).eq("day", day),
        )
        .unique();
      if (stored === null) await ctx.db.insert("usageDays", sum);
      else await ctx.db.patch(stored._id, plus(stored, sum));
    }
    if (changes.length === MAX_CHANGES) await ctx.scheduler.runAfter(0, internal.usage.sumUp, {});
    return null;
  },
});

/**
 * What the jobs count for that were first heard of from `since` on and before `until` (whole days, UTC; RFC 3339 UTC times), per
 * workspace by name. `success_rate` is of those that ended well or badly, null when none did; a cancelled job counts for
 * neither. `complete` is false where there was more than one query may read: ask for a shorter time or one workspace.
 * Errors: `invalid` (times, workspace_id).
 */
export const summary = tenantQuery({
  args: { workspace_id: v.optional(v.string()), since: v.optional(v.string()), until: v.optional(v.string()) },
  handler: async (ctx, { workspace_id, since, until }) => {
    const days = { first: since === undefined ? "" : firstDay(since), end: until === undefined ? "~" : endDay(until) };
    const names = workspace_id === undefined ? await workspacesOf(ctx, ctx.tenant_id) : [workspace_id];
    let left = MAX_ROWS;
    const by_workspace = [];
    for (const name of names) {
      let sum = NOTHING;
      let rows = 0;
      for (const table of ["usageDays", "usageChanges"] as const) {
        const found = await read(ctx, table, name, days, left);
        for (const row of found) sum = plus(sum, counted(row));
        rows += found.length;
        left -= found.length;
      }
      if (rows > 0) by_workspace.push({ workspace_id: name, ...shown(sum) });
      if (left <= 0) break;
    }
    return { by_workspace, complete: left > 0 };
  },
});

function read(
  ctx: TenantCtx,
  table: "usageDays" | "usageChanges",
  workspace_id: string,
  { first, end }: { first: string; end: string },
  most: number,
) {
  return ctx.db
    .query(table)
    .withIndex("by_tenant_workspace_day", (q) =>
      q.eq("tenant_id", ctx.tenant_id).eq("workspace_id", workspace_id).gte("day", first).lt("day", end),
    )
    .take(Math.max(0, most));
}

/** The names of the workspaces that the tenant has had jobs in. */
export async function workspacesOf(ctx: QueryCtx, tenant_id: string): Promise<string[]> {
  const known = await ctx.db
    .query("workspaces")
    .withIndex("by_tenant_workspace", (q) => q.eq("tenant_id", tenant_id))
    .take(MAX_WORKSPACES);
  return known.map(({ workspace_id }) => workspace_id);
}

function shown({ node_seconds, ...counts }: Usage) {
  const ended = counts.succeeded + counts.failed;
  return {
    ...counts,
    node_hours: Math.round(node_seconds / 3.6) / 1000,
    success_rate: ended === 0 ? null : counts.succeeded / ended,
  };
}

function dayOf(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

function firstDay(since: string): string {
  return dayOf(timeOf("since", since));
}

/** The first day that is wholly after `until`. */
function endDay(until: string): string {
  return dayOf(timeOf("until", until) - 1 + 86_400_000);
}

export function timeOf(name: string, text: string): number {
  if (!isUtcTime(text)) throw refusal("invalid", `${name} must be an RFC 3339 UTC time, for example 2026-03-01T00:00:00Z`);
  return Date.parse(text);
}
