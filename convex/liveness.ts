// When a node's status changes. Queries know no time, so each change is written when it happens: by what changes a
// registration, by heartbeats, and by a check that stands scheduled as long as a node is heard.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { internal } from "./_generated/api";
import { internalMutation, type MutationCtx, type QueryCtx } from "./_generated/server";
import { acceptedEpochs } from "./epochs";
import { judge, OFFLINE_AFTER_MS, type Status } from "./status";

/** Writes the node's status as it is now; an unchanged one is not written. */
export async function settle(ctx: MutationCtx, node_id: string, now = Date.now()): Promise<void> {
  const [registration, node, stored, epochs] = await Promise.all([
    ctx.db
      .query("nodeRegistry")
      .withIndex("by_node", (q) => q.eq("node_id", node_id))
      .unique(),
    hotNode(ctx, node_id),
    storedStatus(ctx, node_id),
    acceptedEpochs(ctx, node_id),
  ]);
  const { state, reasons, since } = judge({ registration, node, epochs: epochs.map((one) => one.epoch), now });
  if (stored?.state === state) {
    if (JSON.stringify(stored.reasons) !== JSON.stringify(reasons)) await ctx.db.patch(stored._id, { reasons });
    return;
  }
  // Its first sign of life, or the first after a silence.
  if ((stored === null || stored.state === "offline") && ["online", "degraded", "draining"].includes(state)) {
    await ctx.scheduler.runAfter(0, internal.delivery.wake, { node_id });
  }
  const changed = { state, reasons, since: since ?? new Date(now).toISOString() };
  if (stored === null) await ctx.db.insert("nodeStatuses", { node_id, ...changed });
  else await ctx.db.patch(stored._id, changed);
}

/** Keeps a heartbeat that has come just now, and sees to it that its absence will be noticed. */
export async function hear(
  ctx: MutationCtx,
  node: Doc<"nodes">,
  heartbeat: NonNullable<Doc<"nodes">["heartbeat"]>,
): Promise<void> {
  const now = Date.now();
  // One that is long overdue was lost: it will not come any more.
  const watched = node.check_at !== undefined && now < Date.parse(node.check_at) + OFFLINE_AFTER_MS;
  const check_at = watched ? node.check_at : await watch(ctx, node.node_id, now + OFFLINE_AFTER_MS);
  await ctx.db.patch(node._id, { heartbeat, heard_at: new Date(now).toISOString(), check_at });
  await settle(ctx, node.node_id, now);
}

/** Looks whether the node was heard lately, and stands scheduled anew as long as it was. */
export const check = internalMutation({
  args: { node_id: v.string() },
  returns: v.null(),
  handler: async (ctx, { node_id }): Promise<null> => {
    const node = await hotNode(ctx, node_id);
    if (node?.heard_at === undefined) return null;
    const due = Date.parse(node.heard_at) + OFFLINE_AFTER_MS;
    const now = Date.now();
    const check_at = due > now ? await watch(ctx, node_id, due) : undefined;
    await ctx.db.patch(node._id, { check_at });
    await settle(ctx, node_id, now);
    return null;
  },
});

async function watch(ctx: MutationCtx, node_id: string, at: number): Promise<string> {
  await ctx.scheduler.runAt(at, internal.liveness.check, { node_id });
  return new Date(at).toISOString();
}

/** The status of a node, also of one of which none was written yet. */
export async function statusOf(ctx: QueryCtx, node: Doc<"nodes">): Promise<Status> {
  const stored = await storedStatus(ctx, node.node_id);
  if (stored !== null) return { state: stored.state, since: stored.since, reasons: stored.reasons };
  const reason = node.heartbeat === undefined ? "never_heard" : "no_heartbeat";
  return { state: "offline", since: new Date(node._creationTime).toISOString(), reasons: [reason] };
}

/** Since when a node is offline; its hot document is looked at only as long as nothing was ever heard of it. */
export async function offlineSince(ctx: QueryCtx, node_id: string): Promise<string | undefined> {
  const stored = await storedStatus(ctx, node_id);
  if (stored !== null) return stored.state === "offline" ? stored.since : undefined;
  const node = await hotNode(ctx, node_id);
  return node === null ? undefined : (await statusOf(ctx, node)).since;
}

export function hotNode(ctx: QueryCtx, node_id: string): Promise<Doc<"nodes"> | null> {
  return ctx.db
    .query("nodes")
    .withIndex("by_node", (q) => q.eq("node_id", node_id))
    .unique();
}

function storedStatus(ctx: QueryCtx, node_id: string): Promise<Doc<"nodeStatuses"> | null> {
  return ctx.db
    .query("nodeStatuses")
    .withIndex("by_node", (q) => q.eq("node_id", node_id))
    .unique();
}
