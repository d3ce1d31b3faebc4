// Which tenants a node serves besides its owner. The owner offers, the other tenant agrees: from then on the node may
// write what that tenant sees, so nobody's node comes to a tenant unasked.
import type { Doc } from "./_generated/dataModel";
import type { QueryCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { isName } from "./checks";
import { notFound, refusal, type TenantMutationCtx } from "./functions";
import { amend, auditNode, registrationOf, type Registration } from "./registration";

const MAX_OFFERS = 64;

export async function offer(ctx: TenantMutationCtx, node: Registration, tenant_id: string): Promise<boolean> {
  if (!isName(tenant_id)) throw refusal("invalid", "with_tenant must be the name of a tenant");
  const { node_id } = node;
  const known = (await pairOf(ctx, node_id, tenant_id)) ?? (await offerOf(ctx, node_id, tenant_id));
  if (known !== null) return false;
  const open = await ctx.db
    .query("nodeOffers")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", node_id))
    .take(MAX_OFFERS);
  if (open.length >= MAX_OFFERS) throw refusal("conflict", `A node may have ${MAX_OFFERS} open offers: unshare some`);
  const offered_at = new Date().toISOString();
  // Whether there is such a tenant does not show.
  await ctx.db.insert("nodeOffers", { node_id, tenant_id, owner: ctx.tenant_id, offered_at });
  await auditNode(ctx, node, ctx.actor, "node.offered", { about: tenant_id });
  return true;
}

/** Takes the offer that the caller's tenant has. Errors: `not_found`. */
export async function accept(ctx: TenantMutationCtx, node_id: string): Promise<boolean> {
  const { tenant_id } = ctx;
  const offered = await offerOf(ctx, node_id, tenant_id);
  if (offered === null && (await pairOf(ctx, node_id, tenant_id)) !== null) return false;
  const node = await registrationOf(ctx, node_id);
  if (offered === null || node === null) throw notFound();
  await ctx.db.delete(offered._id);
  await ctx.db.insert("nodeTenants", { node_id, tenant_id });
  await amend(ctx, node, {});
  await auditNode(ctx, node, ctx.actor, "node.shared", { about: tenant_id });
  await recordAudit(ctx, { tenant_id, actor: ctx.actor, action: "node.accepted", subject: node_id });
  return true;
}

/** Takes a node or its offer from a tenant that does not own it. */
export async function withdraw(ctx: TenantMutationCtx, node: Registration, tenant_id: string): Promise<boolean> {
  const { node_id } = node;
  if (tenant_id === node.owner) throw refusal("invalid", "A node always serves the tenant that owns it");
  const [pair, offered] = [await pairOf(ctx, node_id, tenant_id), await offerOf(ctx, node_id, tenant_id)];
  if (pair === null && offered === null) return false;
  if (offered !== null) await ctx.db.delete(offered._id);
  if (pair !== null) {
    await ctx.db.delete(pair._id);
    await amend(ctx, node, {});
    await recordAudit(ctx, { tenant_id, actor: ctx.actor, action: "node.withdrawn", subject: node_id });
  }
  await auditNode(ctx, node, ctx.actor, "node.unshared", { about: tenant_id });
  return true;
}

/** Gives back a node that others own, or declines its offer. Errors: `not_found`, `invalid` (it is the owner's). */
export async function leave(ctx: TenantMutationCtx, node_id: string): Promise<boolean> {
  const { tenant_id } = ctx;
  const known = (await pairOf(ctx, node_id, tenant_id)) ?? (await offerOf(ctx, node_id, tenant_id));
  const node = await registrationOf(ctx, node_id);
  if (known === null || node === null) throw notFound();
  return withdraw(ctx, node, tenant_id);
}

/** The open offers to a tenant, by the node's name. */
export async function offersTo(ctx: QueryCtx, tenant_id: string) {
  const offers = await ctx.db
    .query("nodeOffers")
    .withIndex("by_tenant", (q) => q.eq("tenant_id", tenant_id))
    .take(MAX_OFFERS);
  return offers
    .map(({ node_id, owner, offered_at }) => ({ node_id, owner, offered_at }))
    .sort((one, other) => (one.node_id < other.node_id ? -1 : 1));
}

export function pairOf(ctx: QueryCtx, node_id: string, tenant_id: string): Promise<Doc<"nodeTenants"> | null> {
  return ctx.db
    .query("nodeTenants")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", node_id).eq("tenant_id", tenant_id))
    .unique();
}

function offerOf(ctx: QueryCtx, node_id: string, tenant_id: string): Promise<Doc<"nodeOffers"> | null> {
  return ctx.db
    .query("nodeOffers")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", node_id).eq("tenant_id", tenant_id))
    .unique();
}
