// The only two doors to public functions: users enter through `tenantQuery`, the adapter through `serviceMutation`.
// Every other module is kept from the raw builders by a test.
import type { RegisteredMutation, RegisteredQuery, UserIdentity } from "convex/server";
import { ConvexError, v, type ObjectType, type PropertyValidators, type Validator } from "convex/values";
import { mutation, query, type MutationCtx, type QueryCtx } from "./_generated/server";

export type ErrorCode = "unauthenticated" | "not_found" | "forbidden" | "invalid" | "epoch_mismatch";

/** The error that a caller sees as `errorData`: `code` to branch on, `message` for people. */
export function refusal(code: ErrorCode, message: string): ConvexError<{ code: ErrorCode; message: string }> {
  return new ConvexError({ code, message });
}

async function authenticated(ctx: QueryCtx | MutationCtx): Promise<UserIdentity> {
  const identity = await ctx.auth.getUserIdentity();
  if (identity === null) throw refusal("unauthenticated", "A valid token is needed");
  return identity;
}

/** The one answer for what is missing and for what belongs to others. */
export function notFound(): ConvexError<{ code: ErrorCode; message: string }> {
  return refusal("not_found", "There is no such tenant or job");
}

export type TenantCtx = QueryCtx & { tenant_id: string };

/**
 * A public query of one tenant. It takes `tenant_id` besides `args`; the handler finds it in the context, proven by a
 * membership of the caller.
 */
export function tenantQuery<Args extends PropertyValidators, Result>(definition: {
  args: Args;
  handler: (ctx: TenantCtx, args: ObjectType<Args>) => Promise<Result>;
}): RegisteredQuery<"public", ObjectType<Args> & { tenant_id: string }, Promise<Result>> {
  const args: PropertyValidators = { ...definition.args, tenant_id: v.string() };
  return query({
    args,
    handler: async (ctx, { tenant_id, ...rest }) => {
      const { tokenIdentifier } = await authenticated(ctx);
      const membership = await ctx.db
        .query("memberships")
        .withIndex("by_token_tenant", (q) =>
          q.eq("token_identifier", tokenIdentifier).eq("tenant_id", tenant_id as string),
        )
        .unique();
      if (membership === null) throw notFound();
      return definition.handler({ ...ctx, tenant_id: membership.tenant_id }, rest as ObjectType<Args>);
    },
  }) as RegisteredQuery<"public", ObjectType<Args> & { tenant_id: string }, Promise<Result>>;
}

export type ServiceScope = "projections:write" | "heartbeats:write";
export type ServiceCtx = MutationCtx & { actor: string; node_id: string };

/**
 * A public mutation of the adapter on behalf of one node: the token comes from the service issuer, its `scope` holds
 * `definition.scope`, and its `node_id` reaches the handler in the context.
 */
export function serviceMutation<Args extends PropertyValidators, Result>(definition: {
  scope: ServiceScope;
  args: Args;
  returns: Validator<Result, "required", string>;
  handler: (ctx: ServiceCtx, args: ObjectType<Args>) => Promise<Result>;
}): RegisteredMutation<"public", ObjectType<Args>, Promise<Result>> {
  const args: PropertyValidators = definition.args;
  return mutation({
    args,
    returns: definition.returns,
    handler: async (ctx, given) => {
      const identity = await authenticated(ctx);
      const { scope, node_id } = identity;
      if (
        identity.issuer !== process.env.BYOC_SERVICE_ISSUER ||
        typeof scope !== "string" ||
        !scope.split(" ").includes(definition.scope) ||
        typeof node_id !== "string"
      ) {
        throw refusal("forbidden", `This needs a service token of a node with scope ${definition.scope}`);
      }
      const service = { ...ctx, actor: identity.tokenIdentifier, node_id };
      return definition.handler(service, given as ObjectType<Args>) as Promise<never>;
    },
  }) as RegisteredMutation<"public", ObjectType<Args>, Promise<Result>>;
}
