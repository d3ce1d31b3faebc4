// Who belongs to which tenant and which node serves it. Only the holder of a deploy or admin key
// can declare it.
import { v } from "convex/values";
import { internalMutation, type MutationCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { ownQuery, refusal } from "./functions";
import { hotNode } from "./liveness";
import { amend, register, registrationOf } from "./registration";
import { workspacesOf } from "./usage";

const MAX_TENANTS = 256;

/** The tenants of the caller, by name, with the workspaces that jobs were submitted in. Errors: `unauthenticated`. */
export const mine = ownQuery({
  handler: async (ctx, caller) => {
    const memberships = await ctx.db
      .query("memberships")
      .withIndex("by_token_tenant", (q) => q.eq("token_identifier", caller))
      .take(MAX_TENANTS);
    return Promise.all(
      memberships.map(async ({ tenant_id, role }) => ({
        tenant_id,
        role,
        workspaces: await workspacesOf(ctx, tenant_id),
      })),
    );
  },
});

/**
 * Declares tenants, memberships and nodes, and returns how many documents that changed: a second time, none.
 * `tenant_ids` is the whole list of the tenants a node serves, `owner` the one of them that manages it; who is not served
 * any more owns it no longer. What is left out elsewhere stays as it is.
 * Errors: `invalid` (a tenant that is neither stored nor declared, an owner that the node does not serve).
 */
export const seed = internalMutation({
  args: {
    tenants: v.optional(v.array(v.object({ tenant_id: v.string() }))),
    memberships: v.optional(
      v.array(v.object({ tenant_id: v.string(), token_identifier: v.string(), role: v.string() })),
    ),
    nodes: v.optional(
      v.array(v.object({ node_id: v.string(), tenant_ids: v.array(v.string()), owner: v.optional(v.string()) })),
    ),
  },
  handler: async (ctx, { tenants = [], memberships = [], nodes = [] }): Promise<{ changed: number }> => {
    let changed = 0;
    for (const { tenant_id } of tenants) changed += await declareTenant(ctx, tenant_id);
    for (const membership of memberships) changed += await declareMembership(ctx, membership);
    for (const node of nodes) changed += await declareNode(ctx, node);
    return { changed };
  },
});

async function declareTenant(ctx: MutationCtx, tenant_id: string): Promise<number> {
  if ((await storedTenant(ctx, tenant_id)) !== null) return 0;
  await ctx.db.insert("tenants", { tenant_id });
  await audit(ctx, tenant_id, "tenant.declared", tenant_id);
  return 1;
}

async function declareMembership(
  ctx: MutationCtx,
  membership: { tenant_id: string; token_identifier: string; role: string },
): Promise<number> {
  const { tenant_id, token_identifier, role } = membership;
  await requireTenant(ctx, tenant_id);
  const stored = await ctx.db
    .query("memberships")
    .withIndex("by_token_tenant", (q) => q.eq("token_identifier", token_identifier).eq("tenant_id", tenant_id))
    .unique();
  if (stored?.role === role) return 0;
  if (stored === null) await ctx.db.insert("memberships", membership);
  else await ctx.db.patch(stored._id, { role });
  await audit(ctx, tenant_id, "membership.declared", token_identifier);
  return 1;
}

async function declareNode(
  ctx: MutationCtx,
  { node_id, tenant_ids, owner }: { node_id: string; tenant_ids: string[]; owner?: string },
): Promise<number> {
  let changed = 0;
  const stored = await registrationOf(ctx, node_id);
  if (owner !== undefined && !tenant_ids.includes(owner)) {
    throw refusal("invalid", `The node ${node_id} must serve its owner: name it in tenant_ids`);
  }
  if ((await hotNode(ctx, node_id)) === null) {
    await ctx.db.insert("nodes", { node_id });
    changed += 1;
  }
  const pairs = await ctx.db
    .query("nodeTenants")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", node_id))
    .collect();
  const served = new Set(pairs.map(({ tenant_id }) => tenant_id));
  const wanted = new Set(tenant_ids);
  for (const { _id, tenant_id } of pairs.filter((pair) => !wanted.has(pair.tenant_id))) {
    await ctx.db.delete(_id);
    await audit(ctx, tenant_id, "node.withdrawn", node_id);
    changed += 1;
  }
  for (const tenant_id of [...wanted].filter((tenant) => !served.has(tenant))) {
    await requireTenant(ctx, tenant_id);
    await ctx.db.insert("nodeTenants", { node_id, tenant_id });
    await audit(ctx, tenant_id, "node.declared", node_id);
    changed += 1;
  }
  if (owner !== undefined && owner !== stored?.owner) {
    await audit(ctx, owner, "node.owner_declared", node_id);
    changed += 1;
  }
  if (changed > 0 || stored === null) {
    const kept = tenant_ids.find((tenant_id) => tenant_id === stored?.owner);
    await amend(ctx, stored ?? (await register(ctx, { node_id })), { owner: owner ?? kept });
  }
  return changed;
}

function storedTenant(ctx: MutationCtx, tenant_id: string) {
  return ctx.db
    .query("tenants")
    .withIndex("by_tenant", (q) => q.eq("tenant_id", tenant_id))
    .unique();
}

async function requireTenant(ctx: MutationCtx, tenant_id: string): Promise<void> {
  if ((await storedTenant(ctx, tenant_id)) === null) {
    throw refusal("invalid", `The tenant ${tenant_id} is not declared`);
  }
}

function audit(ctx: MutationCtx, tenant_id: string, action: string, subject: string): Promise<void> {
  return recordAudit(ctx, { tenant_id, actor: "admin", action, subject });
}
