// The only doors to public functions: users enter through `tenantQuery`, `managerQuery`, `ownQuery`, `memberMutation`,
// `tenantMutation` and `secretAction`, the adapter through `serviceQuery` and `serviceMutation`. ESLint keeps every other module from
// the raw builders.
import type {
  FunctionReference,
  RegisteredAction,
  RegisteredMutation,
  RegisteredQuery,
  UserIdentity,
} from "convex/server";
import { ConvexError, v, type ObjectType, type PropertyValidators, type Validator } from "convex/values";
import { action, internalMutation, mutation, query, type MutationCtx, type QueryCtx } from "./_generated/server";
import { newSecret, sha256Hex } from "./secrets";

export type ErrorCode =
  | "unauthenticated"
  | "not_found"
  | "forbidden"
  | "invalid"
  | "conflict"
  | "epoch_mismatch"
  | "not_configured";

/** The error that a caller sees as `errorData`: `code` to branch on, `message` for people. */
export function refusal(code: ErrorCode, message: string): ConvexError<{ code: ErrorCode; message: string }> {
  return new ConvexError({ code, message });
}

type Auth = { auth: { getUserIdentity: () => Promise<UserIdentity | null> } };

async function authenticated(ctx: Auth): Promise<UserIdentity> {
  const identity = await ctx.auth.getUserIdentity();
  if (identity === null) throw refusal("unauthenticated", "A valid token is needed");
  return identity;
}

/** The one answer for what is missing and for what belongs to others. */
export function notFound(): ConvexError<{ code: ErrorCode; message: string }> {
  return refusal("not_found", "There is no such tenant, or nothing of that name in it");
}

type Tenant = { tenant_id: string; actor: string; user_id: string };
export type TenantCtx = QueryCtx & Tenant;
export type TenantMutationCtx = MutationCtx & Tenant;
type InTenant<Args extends PropertyValidators> = ObjectType<Args> & { tenant_id: string };

/** Who in a tenant manages its nodes and its service tokens. */
const MANAGERS: ReadonlySet<string> = new Set(["owner", "admin"]);
/** Who submits jobs and cancels them. */
const MEMBERS: ReadonlySet<string> = new Set(["owner", "admin", "member"]);

async function membership(ctx: QueryCtx, tenant_id: string): Promise<Tenant & { role: string }> {
  const { tokenIdentifier, subject } = await authenticated(ctx);
  const found = await ctx.db
    .query("memberships")
    .withIndex("by_token_tenant", (q) => q.eq("token_identifier", tokenIdentifier).eq("tenant_id", tenant_id))
    .unique();
  if (found === null) throw notFound();
  return { tenant_id: found.tenant_id, actor: tokenIdentifier, user_id: subject, role: found.role };
}

type TenantQuery<Args extends PropertyValidators, Result> = {
  args: Args;
  handler: (ctx: TenantCtx, args: ObjectType<Args>) => Promise<Result>;
};

function reading<Args extends PropertyValidators, Result>(
  definition: TenantQuery<Args, Result>,
  roles?: ReadonlySet<string>,
): RegisteredQuery<"public", InTenant<Args>, Promise<Result>> {
  const args: PropertyValidators = { ...definition.args, tenant_id: v.string() };
  return query({
    args,
    handler: async (ctx, { tenant_id, ...rest }) => {
      const { role, ...tenant } = await membership(ctx, tenant_id as string);
      if (roles !== undefined) requireRole(role, roles);
      return definition.handler({ ...ctx, ...tenant }, rest as ObjectType<Args>);
    },
  }) as RegisteredQuery<"public", InTenant<Args>, Promise<Result>>;
}

/**
 * A public query of one tenant. It takes `tenant_id` besides `args`; the handler finds it in the context, proven by a
 * membership of the caller.
 */
export function tenantQuery<Args extends PropertyValidators, Result>(definition: TenantQuery<Args, Result>) {
  return reading(definition);
}

/** A public query of one tenant, for its owners and admins; else as `tenantQuery`. */
export function managerQuery<Args extends PropertyValidators, Result>(definition: TenantQuery<Args, Result>) {
  return reading(definition, MANAGERS);
}

type TenantMutation<Args extends PropertyValidators, Result> = {
  args: Args;
  returns: Validator<Result, "required", string>;
  handler: (ctx: TenantMutationCtx, args: ObjectType<Args>) => Promise<Result>;
};

function managed<Args extends PropertyValidators, Result>(
  definition: TenantMutation<Args, Result>,
  roles: ReadonlySet<string> = MANAGERS,
) {
  const args: PropertyValidators = { ...definition.args, tenant_id: v.string() };
  return {
    args,
    returns: definition.returns,
    handler: async (ctx: MutationCtx, { tenant_id, ...rest }: Record<string, unknown>) => {
      const { role, ...tenant } = await membership(ctx, tenant_id as string);
      requireRole(role, roles);
      return definition.handler({ ...ctx, ...tenant }, rest as ObjectType<Args>) as Promise<never>;
    },
  };
}

function requireRole(role: string, roles: ReadonlySet<string>): void {
  if (roles.has(role)) return;
  const named = [...roles].join(", ").replace(/, ([a-z]+)$/, " or $1");
  throw refusal("forbidden", `This needs the role ${named} in the tenant`);
}

/** A public query of whoever has a token, about nobody else: `caller` is the name by which memberships know them. */
export function ownQuery<Result>(definition: {
  handler: (ctx: QueryCtx, caller: string) => Promise<Result>;
}): RegisteredQuery<"public", Record<string, never>, Promise<Result>> {
  return query({
    args: {},
    handler: async (ctx) => definition.handler(ctx, (await authenticated(ctx)).tokenIdentifier),
  }) as never;
}

/** A public mutation of one tenant, for all its members; else as `tenantQuery`. */
export function memberMutation<Args extends PropertyValidators, Result>(
  definition: TenantMutation<Args, Result>,
): RegisteredMutation<"public", InTenant<Args>, Promise<Result>> {
  return mutation(managed(definition, MEMBERS)) as never;
}

/** A public mutation of one tenant, for its owners and admins; else as `tenantQuery`. */
export function tenantMutation<Args extends PropertyValidators, Result>(
  definition: TenantMutation<Args, Result>,
): RegisteredMutation<"public", InTenant<Args>, Promise<Result>> {
  return mutation(managed(definition)) as never;
}

type Kept<Args extends PropertyValidators> = Args & { secret_hash: ReturnType<typeof v.string> };

/** The mutation behind a `secretAction`, with the same proof of who calls; it gets the hash alone. */
export function keepSecret<Args extends PropertyValidators, Result>(
  definition: TenantMutation<Kept<Args>, Result>,
): RegisteredMutation<"internal", InTenant<Kept<Args>>, Promise<Result>> {
  return internalMutation(managed(definition)) as never;
}

/** Names a `keepSecret`. Declared with this type, as its own would be inferred in a circle. */
export type Keep<Args extends PropertyValidators, Stored> = () => FunctionReference<
  "mutation",
  "internal",
  InTenant<Kept<Args>>,
  Stored
>;

/**
 * A public action that makes a secret for an owner or admin of the tenant and shows it once. It draws the secret, as
 * mutations draw nothing that is unpredictable, and has `keep` store its hash.
 */
export function secretAction<Args extends PropertyValidators, Stored, Shown>(definition: {
  args: Args;
  returns: Validator<Shown, "required", string>;
  prefix: string;
  keep: Keep<Args, Stored>;
  show: (secret: string, stored: Stored) => Shown;
}): RegisteredAction<"public", InTenant<Args>, Promise<Shown>> {
  const args: PropertyValidators = { ...definition.args, tenant_id: v.string() };
  return action({
    args,
    returns: definition.returns,
    handler: async (ctx, given) => {
      await authenticated(ctx);
      const secret = definition.prefix + newSecret();
      const kept = { ...given, secret_hash: await sha256Hex(secret) } as never;
      return definition.show(secret, (await ctx.runMutation(definition.keep(), kept)) as Stored) as never;
    },
  }) as never;
}

export type ServiceScope = "projections:write" | "heartbeats:write" | "registry:read" | "registry:write";
type Service = { actor: string; node_id: string };
export type ServiceCtx = MutationCtx & Service;
export type ServiceQueryCtx = QueryCtx & Service;

async function service(ctx: QueryCtx, needed: ServiceScope): Promise<Service> {
  const { issuer, scope, node_id, tokenIdentifier } = await authenticated(ctx);
  if (
    issuer !== process.env.BYOC_SERVICE_ISSUER ||
    typeof scope !== "string" ||
    !scope.split(" ").includes(needed) ||
    typeof node_id !== "string"
  ) {
    throw refusal("forbidden", `This needs a service token of a node with scope ${needed}`);
  }
  return { actor: tokenIdentifier, node_id };
}

type ServiceFunction<Ctx, Args extends PropertyValidators, Result> = {
  scope: ServiceScope;
  args: Args;
  returns: Validator<Result, "required", string>;
  handler: (ctx: Ctx, args: ObjectType<Args>) => Promise<Result>;
};

function serving<Ctx extends QueryCtx, Args extends PropertyValidators, Result>(
  definition: ServiceFunction<Ctx & Service, Args, Result>,
) {
  return {
    args: definition.args as PropertyValidators,
    returns: definition.returns,
    handler: async (ctx: Ctx, given: Record<string, unknown>) => {
      const caller = await service(ctx, definition.scope);
      return definition.handler({ ...ctx, ...caller }, given as ObjectType<Args>) as Promise<never>;
    },
  };
}

/**
 * A public mutation of the adapter on behalf of one node: the token comes from the service issuer, its `scope` holds
 * `definition.scope`, and its `node_id` reaches the handler in the context.
 */
export function serviceMutation<Args extends PropertyValidators, Result>(
  definition: ServiceFunction<ServiceCtx, Args, Result>,
): RegisteredMutation<"public", ObjectType<Args>, Promise<Result>> {
  return mutation(serving<MutationCtx, Args, Result>(definition)) as never;
}

/** A public query of the adapter; else as `serviceMutation`. */
export function serviceQuery<Args extends PropertyValidators, Result>(
  definition: ServiceFunction<ServiceQueryCtx, Args, Result>,
): RegisteredQuery<"public", ObjectType<Args>, Promise<Result>> {
  return query(serving<QueryCtx, Args, Result>(definition)) as never;
}
