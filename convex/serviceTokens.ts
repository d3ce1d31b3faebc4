// Tokens by which machines act for a tenant at the adapter: `byoc_st_<43 characters>`, shown once, stored hashed.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { internal } from "./_generated/api";
import { internalMutation, type QueryCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { keepSecret, notFound, refusal, secretAction, tenantMutation, tenantQuery, type Keep } from "./functions";

export const TOKEN_PREFIX = "byoc_st_";
/** What a token may be allowed; the adapter's scopes. */
export const CLIENT_SCOPES: readonly string[] = ["jobs:submit", "jobs:cancel", "jobs:read", "nodes:manage"];
const MAX_DAYS = 365;
const MAX_TOKENS = 256;
const DAY_MS = 86_400_000;
// A check never sleeps longer, so that a token's end survives a change of this module.
const LONGEST_SLEEP_MS = 7 * DAY_MS;

const args = { name: v.string(), scopes: v.array(v.string()), days: v.number() };
const kept = v.object({ token_id: v.string(), expires_at: v.string() });
type Kept = { token_id: string; expires_at: string };
const keepToken: Keep<typeof args, Kept> = () => internal.serviceTokens.keep;

/**
 * Makes a token of the tenant with these scopes; its text is shown this once. `days` is its life, 1 to 365.
 * Errors: `invalid` (name, scopes, days), `conflict` (too many).
 */
export const create = secretAction({
  args,
  returns: v.object({ token: v.string(), ...kept.fields }),
  prefix: TOKEN_PREFIX,
  keep: keepToken,
  show: (token, stored: Kept) => ({ token, ...stored }),
});

export const keep = keepSecret({
  args: { ...args, secret_hash: v.string() },
  returns: kept,
  handler: async (ctx, { name, scopes, days, secret_hash }) => {
    const { tenant_id, actor } = ctx;
    if (!/^[ -~]{1,64}$/.test(name)) throw refusal("invalid", "name must have 1 to 64 printable ASCII characters");
    const known = scopes.every((scope) => CLIENT_SCOPES.includes(scope));
    if (scopes.length === 0 || !known || new Set(scopes).size !== scopes.length) {
      throw refusal("invalid", `scopes must be one or more of ${CLIENT_SCOPES.join(", ")}, each once`);
    }
    if (!Number.isInteger(days) || days < 1 || days > MAX_DAYS) {
      throw refusal("invalid", `days must be a whole number from 1 to ${MAX_DAYS}`);
    }
    const present = await tokensOf(ctx, tenant_id);
    if (present.filter((token) => token.ended_at === undefined).length >= MAX_TOKENS) {
      throw refusal("conflict", `A tenant may have ${MAX_TOKENS} tokens: revoke some`);
    }
    const now = Date.now();
    // The name of a token says nothing about it: it is a part of its hash.
    const token_id = `st-${secret_hash.slice(0, 16)}`;
    const expires_at = new Date(now + days * DAY_MS).toISOString();
    const id = await ctx.db.insert("serviceTokens", {
      token_id,
      tenant_id,
      name,
      hash: secret_hash,
      scopes: [...scopes].sort(),
      created_at: new Date(now).toISOString(),
      created_by: actor,
      expires_at,
    });
    await recordAudit(ctx, { tenant_id, actor, action: "service_token.created", subject: token_id });
    await ctx.scheduler.runAfter(Math.min(days * DAY_MS, LONGEST_SLEEP_MS), internal.serviceTokens.expire, { id });
    return { token_id, expires_at };
  },
});

/** Ends a token at its time; queries know no time. */
export const expire = internalMutation({
  args: { id: v.id("serviceTokens") },
  returns: v.null(),
  handler: async (ctx, { id }): Promise<null> => {
    const token = await ctx.db.get(id);
    if (token === null || token.ended_at !== undefined) return null;
    const left = Date.parse(token.expires_at) - Date.now();
    if (left > 0) {
      await ctx.scheduler.runAfter(Math.min(left, LONGEST_SLEEP_MS), internal.serviceTokens.expire, { id });
    } else {
      await ctx.db.patch(id, { ended_at: token.expires_at });
    }
    return null;
  },
});

/** The tenant's tokens, the newest first, ended ones too; never a token's text or hash. */
export const list = tenantQuery({
  args: {},
  handler: async (ctx) => {
    const tokens = await tokensOf(ctx, ctx.tenant_id);
    tokens.sort((one, other) => other._creationTime - one._creationTime);
    return tokens.map(({ _id, _creationTime, hash: _, tenant_id: __, ...shown }) => shown);
  },
});

/** Ends a token at once; the adapter may believe it for another minute. Safe to repeat. Errors: `not_found`. */
export const revoke = tenantMutation({
  args: { token_id: v.string() },
  returns: v.object({ changed: v.boolean() }),
  handler: async (ctx, { token_id }) => {
    const { tenant_id, actor } = ctx;
    const token = await ctx.db
      .query("serviceTokens")
      .withIndex("by_tenant_token", (q) => q.eq("tenant_id", tenant_id).eq("token_id", token_id))
      .unique();
    if (token === null) throw notFound();
    if (token.ended_at !== undefined) return { changed: false };
    await ctx.db.patch(token._id, { ended_at: new Date().toISOString() });
    await recordAudit(ctx, { tenant_id, actor, action: "service_token.revoked", subject: token_id });
    return { changed: true };
  },
});

function tokensOf(ctx: QueryCtx, tenant_id: string): Promise<Doc<"serviceTokens">[]> {
  return ctx.db
    .query("serviceTokens")
    .withIndex("by_tenant_token", (q) => q.eq("tenant_id", tenant_id))
    .collect();
}
