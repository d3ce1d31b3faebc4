// Every public function, found and not listed, so a new one cannot be forgotten; and arguments that come past every door.
import { makeFunctionReference } from "convex/server";
import type { Deployment } from "./fixtures";
import { LIFE } from "./fixtures";

type Exported = { isPublic?: boolean; isQuery?: boolean; isMutation?: boolean; exportArgs: () => string };
const modules = import.meta.glob<Record<string, unknown>>(["../../convex/*.ts", "!../../convex/*.config.ts"], {
  eager: true,
});

function typeOf({ isQuery, isMutation }: Exported): "query" | "mutation" | "action" {
  if (isQuery) return "query";
  return isMutation ? "mutation" : "action";
}

export type Argument = { fieldType: { type: string; value?: unknown }; optional: boolean };

function argumentsOf({ exportArgs }: Exported): Record<string, Argument> {
  return (JSON.parse(exportArgs()) as { value: Record<string, Argument> }).value;
}

export const publicFunctions = Object.entries(modules).flatMap(([path, module]) =>
  Object.entries(module)
    .filter(([, value]) => typeof value === "function" && (value as unknown as Exported).isPublic)
    .map(([name, value]) => ({
      path: `${path.split("/").at(-1)!.replace(".ts", "")}:${name}`,
      type: typeOf(value as unknown as Exported),
      args: Object.keys(argumentsOf(value as unknown as Exported)),
      validators: argumentsOf(value as unknown as Exported),
    })),
);

export const KEY_ID = "HmZxRMYwdkfMJ0wUFdMx0Nkuyt4tQuxlHBfOFW2gWZI";
export const ARGUMENTS: Record<string, unknown> = {
  job_id: "j1",
  state: "queued",
  paginationOpts: { numItems: 5, cursor: null },
  updates: [LIFE[0]],
  node_id: "n1",
  report: {},
  received_at: "2026-03-01T12:00:00Z",
  with_tenant: "rival",
  name: "pipeline",
  scopes: ["jobs:read"],
  days: 1,
  token_id: "st-none",
  secret_hash: "0".repeat(64),
  hash: "0".repeat(64),
  key: { key_id: KEY_ID, jwk: { kty: "OKP", crv: "Ed25519", x: "A".repeat(43) } },
  key_id: KEY_ID,
  by: KEY_ID,
  actor: "robot",
  workspace_id: "w1",
  command: { execution_profile: {}, resource_shape: {}, workload: {} },
};

export type Caller = Deployment["t"] | ReturnType<Deployment["user"]>;

/** Calls `path` with arguments that are well formed, and for a member of `tenant_id` come past every door. */
export function call(as: Caller, path: string, tenant_id: unknown, others: Record<string, unknown> = {}) {
  const { type, args } = publicFunctions.find((one) => one.path === path)!;
  const known = { ...ARGUMENTS, ...others, tenant_id };
  const given = Object.fromEntries(args.map((name) => [name, known[name as keyof typeof known]]));
  const run = as[type] as unknown as (reference: object, given: object) => Promise<unknown>;
  return run(makeFunctionReference(path), given);
}

/** Functions of the adapter, with tokens of a node. */
export function isOfAdapter(path: string): boolean {
  return path.startsWith("registry:") || ["nodes:recordHeartbeat", "projections:applyProjections"].includes(path);
}
