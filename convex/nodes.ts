// Management nodes as the product knows them: registered by tenancy:seed, alive by their heartbeats.
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";
import { isEpoch, isUtcTime } from "./checks";
import { accept, acceptedEpochs } from "./epochs";
import { refusal, serviceMutation, tenantQuery } from "./functions";

const MAX_REPORT_CHARACTERS = 64 * 1024;

/**
 * The nodes that serve the tenant, by name, each with the newest `epoch` that the product accepted of it and with its
 * last heartbeat, if there are any. A node whose heartbeat names another epoch waits for a decision (`acceptEpoch`).
 */
export const list = tenantQuery({
  args: {},
  handler: async (ctx) => {
    const pairs = await ctx.db
      .query("nodeTenants")
      .withIndex("by_tenant", (q) => q.eq("tenant_id", ctx.tenant_id))
      .collect();
    const names = pairs.map(({ node_id }) => node_id).sort();
    return Promise.all(
      names.map(async (node_id) => {
        const node = await ctx.db
          .query("nodes")
          .withIndex("by_node", (q) => q.eq("node_id", node_id))
          .unique();
        const epoch = (await acceptedEpochs(ctx, node_id)).at(-1)?.epoch;
        return {
          node_id,
          ...(epoch === undefined ? {} : { epoch }),
          ...(node?.heartbeat === undefined ? {} : { heartbeat: node.heartbeat }),
        };
      }),
    );
  },
});

/**
 * Keeps `report` as the node's last heartbeat unless a later one is stored (`superseded`).
 * Errors: `unauthenticated`, `forbidden` (the token, or a node that is not registered), `invalid` (time, size).
 */
export const recordHeartbeat = serviceMutation({
  scope: "heartbeats:write",
  args: { node_id: v.string(), report: v.record(v.string(), v.any()), received_at: v.string() },
  returns: v.object({ outcome: v.union(v.literal("applied"), v.literal("superseded")) }),
  handler: async (ctx, { node_id, report, received_at }) => {
    const node =
      node_id === ctx.node_id
        ? await ctx.db
            .query("nodes")
            .withIndex("by_node", (q) => q.eq("node_id", node_id))
            .unique()
        : null;
    if (node === null) throw refusal("forbidden", "The token is not of a registered node with this name");
    if (!isUtcTime(received_at)) throw refusal("invalid", "received_at must be an RFC 3339 UTC time");
    if (JSON.stringify(report).length > MAX_REPORT_CHARACTERS) {
      throw refusal("invalid", `report must not exceed ${MAX_REPORT_CHARACTERS} characters of JSON`);
    }
    if (node.heartbeat !== undefined && Date.parse(node.heartbeat.received_at) > Date.parse(received_at)) {
      return { outcome: "superseded" };
    }
    await ctx.db.patch(node._id, { heartbeat: { received_at, report } });
    return { outcome: "applied" };
  },
});

/**
 * Believes a further epoch of a node: as the newest, so that what the node tells in it replaces what it told in others;
 * or as a former one, older than `before`, which a product asks for that does not remember it. An epoch that is accepted
 * already changes its place. Returns whether that changed anything.
 * Only the holder of a deploy or admin key can call this.
 * Errors: `invalid` (no epoch, a node that is not registered, a `before` that is not accepted).
 */
export const acceptEpoch = internalMutation({
  args: { node_id: v.string(), epoch: v.string(), before: v.optional(v.string()) },
  returns: v.object({ changed: v.boolean() }),
  handler: async (ctx, { node_id, epoch, before }): Promise<{ changed: boolean }> => {
    const node = await ctx.db
      .query("nodes")
      .withIndex("by_node", (q) => q.eq("node_id", node_id))
      .unique();
    if (node === null) throw refusal("invalid", `The node ${node_id} is not registered`);
    if (!isEpoch(epoch)) throw refusal("invalid", "An epoch is 16 hexadecimal digits, in lower case");
    return { changed: await accept(ctx, { node_id, epoch, before, actor: "admin" }) };
  },
});
