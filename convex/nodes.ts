// Management nodes as the product knows them: made by their owners, known by their keys, alive by their heartbeats.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { internal } from "./_generated/api";
import { internalMutation } from "./_generated/server";
import { isEpoch, isUtcTime } from "./checks";
import { ownedNode, show, shown, type Kept } from "./enrolments";
import { accept as acceptHistory, acceptedEpochs } from "./epochs";
import {
  notFound,
  refusal,
  secretAction,
  serviceMutation,
  tenantMutation,
  tenantQuery,
  type Keep,
  type TenantCtx,
} from "./functions";
import { hear, hotNode, statusOf } from "./liveness";
import { amend, auditNode, registrationOf, revokeNode, tenantsOf } from "./registration";
import * as sharing from "./sharing";

const MAX_REPORT_CHARACTERS = 64 * 1024;
const changed = v.object({ changed: v.boolean() });
const named = { node_id: v.string() };
const keepNew: Keep<typeof named, Kept> = () => internal.enrolments.create;
const keepRenewed: Keep<typeof named, Kept> = () => internal.enrolments.renew;

/**
 * The nodes that serve the tenant, by name: each with its `status`, whether the tenant owns it, the newest `epoch` that
 * the product accepted of it and its last heartbeat, if there are any. A node whose heartbeat names another epoch waits
 * for a decision (`acceptEpoch`).
 */
export const list = tenantQuery({
  args: {},
  handler: async (ctx) => {
    const pairs = await ctx.db
      .query("nodeTenants")
      .withIndex("by_tenant", (q) => q.eq("tenant_id", ctx.tenant_id))
      .collect();
    const names = pairs.map(({ node_id }) => node_id).sort();
    const nodes = await Promise.all(names.map((node_id) => hotNode(ctx, node_id)));
    return Promise.all(nodes.filter((node) => node !== null).map((node) => shownTo(ctx, node)));
  },
});

/**
 * One node as in `list`. Its owner sees besides: its live keys, the tenants that it serves, and until when a token that
 * was not redeemed is good. Errors: `not_found`.
 */
export const get = tenantQuery({
  args: named,
  handler: async (ctx, { node_id }) => {
    const node = await hotNode(ctx, node_id);
    if (node === null || (await sharing.pairOf(ctx, node_id, ctx.tenant_id)) === null) throw notFound();
    const common = await shownTo(ctx, node);
    const registered = await registrationOf(ctx, node_id);
    if (registered === null || registered.owner !== ctx.tenant_id) return common;
    const { keys, enrolment } = registered;
    return {
      ...common,
      keys: keys.map(({ key_id, added_at }) => ({ key_id, added_at })),
      tenants: await tenantsOf(ctx, node_id),
      ...(enrolment !== undefined && enrolment.used_by === undefined ? { token_expires_at: enrolment.expires_at } : {}),
    };
  },
});

async function shownTo(ctx: TenantCtx, node: Doc<"nodes">) {
  const { node_id, heartbeat } = node;
  const epoch = (await acceptedEpochs(ctx, node_id)).at(-1)?.epoch;
  return {
    node_id,
    owned: (await registrationOf(ctx, node_id))?.owner === ctx.tenant_id,
    status: await statusOf(ctx, node),
    ...(epoch === undefined ? {} : { epoch }),
    ...(heartbeat === undefined ? {} : { heartbeat }),
  };
}

/** Nodes that others offer to share with the tenant. */
export const offers = tenantQuery({ args: {}, handler: (ctx) => sharing.offersTo(ctx, ctx.tenant_id) });

/**
 * Makes a node that the tenant owns, and its enrolment token, which is shown this once and good once, for 15 minutes.
 * Errors: `invalid` (node_id), `conflict` (the name is taken, or there are too many), `not_configured`.
 */
export const create = secretAction({
  args: named,
  returns: shown,
  prefix: "",
  keep: keepNew,
  show,
});

/**
 * A new token for a node of the tenant; the one before is void. What redeems it replaces all keys of the node, and lifts
 * a revocation. Errors: `not_found`, `not_configured`.
 */
export const renewToken = secretAction({
  args: named,
  returns: shown,
  prefix: "",
  keep: keepRenewed,
  show,
});

/** Takes all keys from a node of the tenant, and a token that is still out. Errors: `not_found`. */
export const revoke = tenantMutation({
  args: named,
  returns: changed,
  handler: async (ctx, { node_id }) => ({
    changed: await revokeNode(ctx, await ownedNode(ctx, node_id), ctx.actor),
  }),
});

/** Lets a node of the tenant take no new jobs and finish what it has. Errors: `not_found`, `conflict` (revoked). */
export const drain = tenantMutation({
  args: named,
  returns: changed,
  handler: async (ctx, { node_id }) => {
    const node = await ownedNode(ctx, node_id);
    if (node.state === "revoked") throw refusal("conflict", "This node is revoked: enrol it again first");
    if (node.state === "draining") return { changed: false };
    await amend(ctx, node, { state: "draining" });
    await auditNode(ctx, node, ctx.actor, "node.drained");
    return { changed: true };
  },
});

/** Ends `drain`; a node that drains by its own will goes on doing so. Errors: `not_found`. */
export const resume = tenantMutation({
  args: named,
  returns: changed,
  handler: async (ctx, { node_id }) => {
    const node = await ownedNode(ctx, node_id);
    if (node.state !== "draining") return { changed: false };
    await amend(ctx, node, { state: "active" });
    await auditNode(ctx, node, ctx.actor, "node.resumed");
    return { changed: true };
  },
});

/** Offers a node of the tenant to another tenant, which must accept it. Errors: `not_found`, `invalid`, `conflict`. */
export const share = tenantMutation({
  args: { node_id: v.string(), with_tenant: v.string() },
  returns: changed,
  handler: async (ctx, { node_id, with_tenant }) => ({
    changed: await sharing.offer(ctx, await ownedNode(ctx, node_id), with_tenant),
  }),
});

/** Takes a node of the tenant, or its offer, from another tenant. Errors: `not_found`, `invalid` (the owner itself). */
export const unshare = tenantMutation({
  args: { node_id: v.string(), with_tenant: v.string() },
  returns: changed,
  handler: async (ctx, { node_id, with_tenant }) => ({
    changed: await sharing.withdraw(ctx, await ownedNode(ctx, node_id), with_tenant),
  }),
});

/** Takes the offer of a node: from now on it may serve the tenant. Errors: `not_found`. */
export const acceptShare = tenantMutation({
  args: named,
  returns: changed,
  handler: async (ctx, { node_id }) => ({ changed: await sharing.accept(ctx, node_id) }),
});

/** Declines the offer of a node, or gives a shared one back. Errors: `not_found`, `invalid` (the tenant owns it). */
export const leaveShare = tenantMutation({
  args: named,
  returns: changed,
  handler: async (ctx, { node_id }) => ({ changed: await sharing.leave(ctx, node_id) }),
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
    const node = node_id === ctx.node_id ? await hotNode(ctx, node_id) : null;
    if (node === null) throw refusal("forbidden", "The token is not of a registered node with this name");
    if (typeof report !== "object" || report === null || Array.isArray(report)) {
      throw refusal("invalid", "report must be an object");
    }
    if (!isUtcTime(received_at)) throw refusal("invalid", "received_at must be an RFC 3339 UTC time");
    if (JSON.stringify(report).length > MAX_REPORT_CHARACTERS) {
      throw refusal("invalid", `report must not exceed ${MAX_REPORT_CHARACTERS} characters of JSON`);
    }
    if (node.heartbeat !== undefined && Date.parse(node.heartbeat.received_at) > Date.parse(received_at)) {
      return { outcome: "superseded" };
    }
    await hear(ctx, node, { received_at, report });
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
  returns: changed,
  handler: async (ctx, { node_id, epoch, before }): Promise<{ changed: boolean }> => {
    if ((await hotNode(ctx, node_id)) === null) throw refusal("invalid", `The node ${node_id} is not registered`);
    if (!isEpoch(epoch)) throw refusal("invalid", "An epoch is 16 hexadecimal digits, in lower case");
    return { changed: await acceptHistory(ctx, { node_id, epoch, before, actor: "admin" }) };
  },
});
