// One-time tokens: `byoc1.<node_id>.<secret>.<thumbprint of the product's signing key>`, good once and for 15 minutes.
import { v } from "convex/values";
import { isName } from "./checks";
import { keepSecret, notFound, refusal, type TenantMutationCtx } from "./functions";
import { hotNode } from "./liveness";
import { amend, auditNode, register, registrationOf, type Registration } from "./registration";
import { signingKeyId } from "./signing";

const TOKEN_MINUTES = 15;
const MAX_NODES = 256;

const kept = v.object({ node_id: v.string(), product_key_id: v.string(), expires_at: v.string() });
export type Kept = { node_id: string; product_key_id: string; expires_at: string };

/** What the caller sees, once. */
export const shown = v.object({ enrolment_token: v.string(), expires_at: v.string() });

export function show(secret: string, { node_id, product_key_id, expires_at }: Kept) {
  return { enrolment_token: `byoc1.${node_id}.${secret}.${product_key_id}`, expires_at };
}

/** Makes a node of the tenant, and its first token. */
export const create = keepSecret({
  args: { node_id: v.string(), secret_hash: v.string() },
  returns: kept,
  handler: async (ctx, { node_id, secret_hash }) => {
    if (!isName(node_id)) {
      throw refusal("invalid", "node_id must have 1 to 64 letters, digits, hyphens or underscores, a letter or digit first");
    }
    // Names are everybody's, so a taken one must show; whose it is does not.
    if ((await hotNode(ctx, node_id)) !== null) {
      throw refusal("conflict", "This node_id is taken: choose another, or for a node of yours call nodes:renewToken");
    }
    const owned = await ctx.db
      .query("nodeRegistry")
      .withIndex("by_owner", (q) => q.eq("owner", ctx.tenant_id))
      .take(MAX_NODES);
    if (owned.length >= MAX_NODES) throw refusal("conflict", `A tenant may own ${MAX_NODES} nodes`);
    await ctx.db.insert("nodes", { node_id });
    await ctx.db.insert("nodeTenants", { node_id, tenant_id: ctx.tenant_id });
    const node = await register(ctx, { node_id, owner: ctx.tenant_id });
    await auditNode(ctx, node, ctx.actor, "node.created");
    return issue(ctx, node, secret_hash);
  },
});

/** Makes another token for a node of the tenant; the one before is void. */
export const renew = keepSecret({
  args: { node_id: v.string(), secret_hash: v.string() },
  returns: kept,
  handler: async (ctx, { node_id, secret_hash }) => issue(ctx, await ownedNode(ctx, node_id), secret_hash),
});

/** The node, if the tenant owns it. Errors: `not_found`, the same for a node of others and for none. */
export async function ownedNode(ctx: TenantMutationCtx, node_id: string): Promise<Registration> {
  const node = await registrationOf(ctx, node_id);
  if (node === null || node.owner !== ctx.tenant_id) throw notFound();
  return node;
}

async function issue(ctx: TenantMutationCtx, node: Registration, secret_hash: string): Promise<Kept> {
  const product_key_id = await signingKeyId();
  const expires_at = new Date(Date.now() + TOKEN_MINUTES * 60_000).toISOString();
  await amend(ctx, node, { enrolment: { tenant_id: ctx.tenant_id, secret_hash, expires_at } });
  await auditNode(ctx, node, ctx.actor, "node.token_issued");
  return { node_id: node.node_id, product_key_id, expires_at };
}
