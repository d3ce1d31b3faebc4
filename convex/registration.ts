// The registration of a node: its owner, its live keys, its one-time token; every change of it goes through here.
import type { Doc } from "./_generated/dataModel";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { settle } from "./liveness";

export type Registration = Doc<"nodeRegistry">;

export function registrationOf(ctx: QueryCtx, node_id: string): Promise<Registration | null> {
  return ctx.db
    .query("nodeRegistry")
    .withIndex("by_node", (q) => q.eq("node_id", node_id))
    .unique();
}

/** The tenants that the node serves, by name. */
export async function tenantsOf(ctx: QueryCtx, node_id: string): Promise<string[]> {
  const pairs = await ctx.db
    .query("nodeTenants")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", node_id))
    .collect();
  return pairs.map(({ tenant_id }) => tenant_id).sort();
}

/** Makes the registration of a node that has none, without keys. */
export async function register(ctx: MutationCtx, fields: { node_id: string; owner?: string }): Promise<Registration> {
  const created_at = new Date().toISOString();
  const id = await ctx.db.insert("nodeRegistry", { ...fields, state: "active", version: 1, keys: [], created_at });
  return (await ctx.db.get(id))!;
}

/** Changes the registration and what follows from it; `undefined` removes a field. */
export async function amend(
  ctx: MutationCtx,
  { _id, node_id, version }: Registration,
  change: Partial<Pick<Registration, "owner" | "state" | "keys" | "enrolment">>,
): Promise<void> {
  await ctx.db.patch(_id, { ...change, version: version + 1 });
  await settle(ctx, node_id);
}

/**
 * Revokes a node: its keys and a token that is still out are gone, in one step. A new enrolment lifts it.
 * Returns whether that changed anything.
 */
export async function revokeNode(ctx: MutationCtx, node: Registration, actor: string): Promise<boolean> {
  if (node.state === "revoked" && node.enrolment === undefined) return false;
  await amend(ctx, node, { state: "revoked", keys: [], enrolment: undefined });
  await auditNode(ctx, node, actor, "node.revoked");
  return true;
}

/** Writes into the log of the node's owner; `about` is what of the node the row is about, e.g. a key. */
export function auditNode(
  ctx: MutationCtx,
  { node_id, owner }: Pick<Registration, "node_id" | "owner">,
  actor: string,
  action: string,
  { about, code }: { about?: string; code?: string } = {},
): Promise<void> {
  return recordAudit(ctx, {
    ...(owner === undefined ? {} : { tenant_id: owner }),
    actor,
    action,
    subject: about === undefined ? node_id : `${node_id}:${about}`,
    ...(code === undefined ? {} : { code }),
  });
}
