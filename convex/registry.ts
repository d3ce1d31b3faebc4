// What the adapter asks and changes of nodes' identities and of service tokens. Every answer about a node is for a token
// that names this node; nobody else's is touched.
import { v } from "convex/values";
import { recordAudit } from "./audit";
import { bearsItsName, nodeKey, publicKey, registryState, type PublicKey } from "./identity";
import { refusal, serviceMutation, serviceQuery, type ServiceCtx, type ServiceQueryCtx } from "./functions";
import { hotNode } from "./liveness";
import { amend, auditNode, registrationOf, revokeNode, tenantsOf, type Registration } from "./registration";
import { productKeys as currentProductKeys } from "./signing";

const MAX_KEYS = 2;
const MAX_ACTOR_CHARACTERS = 256;

/**
 * A node's identity, or null for an unknown one. Without keys: created and not enrolled yet, or revoked. `state` is
 * `draining` when an owner asked for it; `version` grows with every change of this answer.
 * Errors: `unauthenticated`, `forbidden` (the token, or its node is another).
 */
export const node = serviceQuery({
  scope: "registry:read",
  args: { node_id: v.string() },
  returns: v.union(
    v.null(),
    v.object({
      node_id: v.string(),
      tenants: v.array(v.string()),
      keys: v.array(nodeKey),
      state: registryState,
      version: v.number(),
    }),
  ),
  handler: async (ctx, { node_id }) => {
    requireOwnNode(ctx, node_id);
    const registered = await registrationOf(ctx, node_id);
    if (registered === null && (await hotNode(ctx, node_id)) === null) return null;
    const { keys, state, version } = registered ?? { keys: [], state: "active" as const, version: 0 };
    return { node_id, tenants: await tenantsOf(ctx, node_id), keys, state, version };
  },
});

/**
 * Redeems a one-time token: the node's keys are this one alone from now on, and a revocation is lifted. Compare and set:
 * of many at once one wins. The winner may ask again as long as the token lives, as its answer may have got lost.
 * `refused` says nothing about why: unknown, expired, used, another node's, taken back by a newer token or a revocation.
 * Errors: `unauthenticated`, `forbidden`, `invalid` (a key that does not bear its thumbprint).
 */
export const redeem = serviceMutation({
  scope: "registry:write",
  args: { node_id: v.string(), secret_hash: v.string(), key: publicKey },
  returns: v.union(
    v.object({ outcome: v.literal("enrolled"), tenants: v.array(v.string()) }),
    v.object({ outcome: v.literal("refused") }),
  ),
  handler: async (ctx, { node_id, secret_hash, key }) => {
    requireOwnNode(ctx, node_id);
    await requireOwnName(key);
    const node = await registrationOf(ctx, node_id);
    const token = node?.enrolment;
    if (node === null || token === undefined || token.secret_hash !== secret_hash || token.tenant_id !== node.owner) {
      // Without a tenant: who does not know the secret writes into nobody's log.
      await recordAudit(ctx, { actor: ctx.actor, action: "node.enrolment_refused", subject: node_id, code: "unknown" });
      return { outcome: "refused" as const };
    }
    const expired = Date.parse(token.expires_at) <= Date.now();
    const repeated = token.used_by === key.key_id && live(node, key.key_id);
    if (expired || (token.used_by !== undefined && !repeated)) {
      const code = expired ? "expired" : "used";
      await auditNode(ctx, node, ctx.actor, "node.enrolment_refused", { about: key.key_id, code });
      return { outcome: "refused" as const };
    }
    if (!repeated) {
      await amend(ctx, node, {
        keys: [{ ...key, added_at: new Date().toISOString() }],
        state: node.state === "revoked" ? "active" : node.state,
        enrolment: { ...token, used_by: key.key_id },
      });
      await auditNode(ctx, node, ctx.actor, "node.enrolled", { about: key.key_id });
    }
    return { outcome: "enrolled" as const, tenants: await tenantsOf(ctx, node_id) };
  },
});

/**
 * Adds a node's second key, on the word of a live one (`by`). `present`: it is live already; `too_many`: two are;
 * `unknown`: no such node, or `by` is not live.
 * Errors: as `redeem`.
 */
export const addKey = serviceMutation({
  scope: "registry:write",
  args: { node_id: v.string(), key: publicKey, by: v.string() },
  returns: v.object({
    outcome: v.union(v.literal("added"), v.literal("present"), v.literal("too_many"), v.literal("unknown")),
  }),
  handler: async (ctx, { node_id, key, by }) => {
    requireOwnNode(ctx, node_id);
    await requireOwnName(key);
    const node = await registrationOf(ctx, node_id);
    if (node === null || !live(node, by)) return { outcome: "unknown" as const };
    if (live(node, key.key_id)) return { outcome: "present" as const };
    if (node.keys.length >= MAX_KEYS) return { outcome: "too_many" as const };
    await amend(ctx, node, { keys: [...node.keys, { ...key, added_at: new Date().toISOString() }] });
    await auditNode(ctx, node, `${ctx.actor} for ${by}`, "node.key_added", { about: key.key_id });
    return { outcome: "added" as const };
  },
});

/**
 * Retires one of a node's two keys, on the word of a live one. `absent`: it is not live; `last`: no other is;
 * `unknown`: no such node, or `by` is not live.
 * Errors: `unauthenticated`, `forbidden`.
 */
export const retireKey = serviceMutation({
  scope: "registry:write",
  args: { node_id: v.string(), key_id: v.string(), by: v.string() },
  returns: v.object({
    outcome: v.union(v.literal("retired"), v.literal("absent"), v.literal("last"), v.literal("unknown")),
  }),
  handler: async (ctx, { node_id, key_id, by }) => {
    requireOwnNode(ctx, node_id);
    const node = await registrationOf(ctx, node_id);
    if (node === null || !live(node, by)) return { outcome: "unknown" as const };
    if (!live(node, key_id)) return { outcome: "absent" as const };
    if (node.keys.length === 1) return { outcome: "last" as const };
    await amend(ctx, node, { keys: node.keys.filter((key) => key.key_id !== key_id) });
    await auditNode(ctx, node, `${ctx.actor} for ${by}`, "node.key_retired", { about: key_id });
    return { outcome: "retired" as const };
  },
});

/**
 * Revokes a node for a client of the tenant that owns it: its keys and its open token are gone at once. Safe to repeat.
 * `unknown`: no such node, or another tenant owns it. `actor` names the client in the audit log.
 * Errors: `unauthenticated`, `forbidden`, `invalid` (actor).
 */
export const revoke = serviceMutation({
  scope: "registry:write",
  args: { node_id: v.string(), tenant_id: v.string(), actor: v.string() },
  returns: v.object({ outcome: v.union(v.literal("revoked"), v.literal("unknown")) }),
  handler: async (ctx, { node_id, tenant_id, actor }) => {
    requireOwnNode(ctx, node_id);
    if (actor === "" || actor.length > MAX_ACTOR_CHARACTERS) {
      throw refusal("invalid", `actor must have 1 to ${MAX_ACTOR_CHARACTERS} characters`);
    }
    const node = await registrationOf(ctx, node_id);
    if (node === null || node.owner !== tenant_id) return { outcome: "unknown" as const };
    await revokeNode(ctx, node, `${ctx.actor} for ${actor}`);
    return { outcome: "revoked" as const };
  },
});

/**
 * The service token with this hash (hex SHA-256 of its text), or null: unknown, revoked or expired. `expires_at` counts
 * for the caller too, who keeps the answer for a while.
 * Errors: `unauthenticated`, `forbidden`.
 */
export const serviceToken = serviceQuery({
  scope: "registry:read",
  args: { hash: v.string() },
  returns: v.union(
    v.null(),
    v.object({
      token_id: v.string(),
      tenant_id: v.string(),
      scopes: v.array(v.string()),
      expires_at: v.string(),
    }),
  ),
  handler: async (ctx, { hash }) => {
    const token = await ctx.db
      .query("serviceTokens")
      .withIndex("by_hash", (q) => q.eq("hash", hash))
      .unique();
    if (token === null || token.ended_at !== undefined) return null;
    const { token_id, tenant_id, scopes, expires_at } = token;
    return { token_id, tenant_id, scopes, expires_at };
  },
});

/** The public keys that the product signs commands with, the current one first. Errors: as `serviceToken`. */
export const productKeys = serviceQuery({
  scope: "registry:read",
  args: {},
  returns: v.object({
    keys: v.array(
      v.object({
        kty: v.literal("EC"),
        crv: v.literal("P-256"),
        x: v.string(),
        y: v.string(),
        kid: v.string(),
        alg: v.literal("ES256"),
        use: v.literal("sig"),
      }),
    ),
  }),
  handler: async () => ({ keys: await currentProductKeys() }),
});

function requireOwnNode(ctx: ServiceCtx | ServiceQueryCtx, node_id: string): void {
  if (node_id !== ctx.node_id) throw refusal("forbidden", "The token is not of a node with this name");
}

async function requireOwnName(key: PublicKey): Promise<void> {
  if (!(await bearsItsName(key))) {
    throw refusal("invalid", "key.key_id must be the RFC 7638 thumbprint of key.jwk, an Ed25519 public key");
  }
}

function live(node: Registration, key_id: string): boolean {
  return node.keys.some((key) => key.key_id === key_id);
}
