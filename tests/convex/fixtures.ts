// A deployment in memory with two tenants, each with an owner and a node of its own.
import { ConvexError } from "convex/values";
import type { GenericSchema, SchemaDefinition } from "convex/server";
import { convexTest } from "convex-test";
import { base64url, calculateJwkThumbprint } from "jose";
import { vi } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import type { TableNames } from "../../convex/_generated/dataModel";
import { updateOf, type ProjectionUpdate } from "../../convex/contract";
import schema from "../../convex/schema";
import vector from "../contracts/vectors/command-signature.v1.json";

const modules = import.meta.glob(["../../convex/*.ts", "../../convex/_generated/*.js"]);
// The components that convex.config.ts mounts, as they are built.
const pool = import.meta.glob("../../node_modules/@convex-dev/workpool/dist/component/**/*.js");
const worker = import.meta.glob("../../node_modules/@convex-dev/batch-worker/dist/component/**/*.js");
const schemaIn = (component: Record<string, () => Promise<unknown>>) => async () => {
  const [, load] = Object.entries(component).find(([path]) => path.endsWith("/schema.js"))!;
  return ((await load()) as { default: SchemaDefinition<GenericSchema, boolean> }).default;
};
const [poolSchema, workerSchema] = [schemaIn(pool), schemaIn(worker)];

export const SUBMISSION = "00000000-0000-4000-8000-000000000001";
export const TRACE = "0af7651916cd43dd8448eb211c80319c";
const PRODUCT_ISSUER = "https://product.test";
const SERVICE_ISSUER = "https://adapter.test";
export const ADAPTER = `${SERVICE_ISSUER}|adapter`;
/** A key for these tests alone: the same as of the golden signature. */
export const SIGNING_KEY = vector.private_key;

export const COMMAND_KEY = {
  ...{ kty: "EC", crv: "P-256" },
  d: "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
  x: "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
  y: "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
};

export type Service = { issuer?: string; scope?: string | string[]; node_id?: unknown };
export type Deployment = Awaited<ReturnType<typeof deployment>>;

export async function deployment() {
  process.env.BYOC_PRODUCT_ISSUER = PRODUCT_ISSUER;
  process.env.BYOC_SERVICE_ISSUER = SERVICE_ISSUER;
  process.env.BYOC_SIGNING_KEY = JSON.stringify(SIGNING_KEY);
  delete process.env.BYOC_SIGNING_KEYS_FORMER;
  process.env.BYOC_ADAPTER_URL = "https://adapter.test";
  process.env.BYOC_COMMAND_ISSUER = "https://product.test/commands";
  process.env.BYOC_COMMAND_KEY = JSON.stringify(COMMAND_KEY);
  const t = convexTest({ schema, modules, transactionLimits: true });
  t.registerComponent("deliveries", await poolSchema(), pool);
  t.registerComponent("deliveries/batchWorker", await workerSchema(), worker);
  await t.mutation(internal.tenancy.seed, {
    tenants: [{ tenant_id: "acme" }, { tenant_id: "rival" }],
    memberships: [
      { tenant_id: "acme", token_identifier: `${PRODUCT_ISSUER}|alice`, role: "owner" },
      { tenant_id: "acme", token_identifier: `${PRODUCT_ISSUER}|bob`, role: "member" },
      { tenant_id: "rival", token_identifier: `${PRODUCT_ISSUER}|mallory`, role: "admin" },
    ],
    nodes: [
      { node_id: "n1", tenant_ids: ["acme"], owner: "acme" },
      { node_id: "n2", tenant_ids: ["rival"], owner: "rival" },
    ],
  });
  await t.run(async (ctx) => {
    for (const row of await ctx.db.query("auditLog").collect()) await ctx.db.delete(row._id);
  });
  const service = (claims: Service = {}) =>
    t.withIdentity({
      subject: "adapter",
      issuer: SERVICE_ISSUER,
      scope: "heartbeats:write projections:write registry:read registry:write",
      node_id: "n1",
      ...claims,
    } as never);
  const outcomes = async (updates: ProjectionUpdate[], claims: Service = {}) =>
    (await service(claims).mutation(api.projections.applyProjections, { updates })).outcomes;
  return {
    t,
    service,
    user: (subject: string, issuer = PRODUCT_ISSUER) => t.withIdentity({ subject, issuer }),
    outcomes,
    apply: async (updates: ProjectionUpdate[], claims: Service = {}) =>
      (await outcomes(updates, claims)).map(({ outcome, code }) => code ?? outcome),
    accept: (epoch: string, before?: string) =>
      t.mutation(internal.nodes.acceptEpoch, { node_id: "n1", epoch, ...(before === undefined ? {} : { before }) }),
    job: (job_id = "j1", tenant_id = "acme") =>
      t.run((ctx) =>
        ctx.db
          .query("jobs")
          .withIndex("by_tenant_job", (q) => q.eq("tenant_id", tenant_id).eq("job_id", job_id))
          .unique(),
      ),
    rows: <Table extends TableNames>(table: Table) => t.run((ctx) => ctx.db.query(table).collect()),
    audited: () =>
      t.run(async (ctx) =>
        (await ctx.db.query("auditLog").collect()).map(({ tenant_id, action, subject, code }) =>
          [tenant_id, action, subject, code].filter((part) => part !== undefined).join(" "),
        ),
      ),
    told: (table: "jobEvents" | "jobs") =>
      t.run(async (ctx) => (await ctx.db.query(table).collect()).map((row) => updateOf(row))),
    /** Lets time pass until `met` holds; for tests with fake timers. */
    until: async (met: () => Promise<boolean>, ms = 600_000) => {
      for (let passed = 0, step = 50; passed < ms; passed += step) {
        if (await met()) return;
        step = passed < 5_000 ? 50 : 500;
        vi.advanceTimersByTime(step);
        await t.finishInProgressScheduledFunctions();
      }
      throw new Error("that did not come to be");
    },
  };
}

/** An update of job `j1` of `acme`; `state` follows from `execution_state` unless it is given. */
export function update(
  seq: number,
  execution_state: ProjectionUpdate["execution_state"],
  fields: Partial<ProjectionUpdate> = {},
): ProjectionUpdate {
  const product = { accepted: "queued", launched: "queued", held: "attention" } as const;
  return {
    schema_version: "1",
    projection_id: `${SUBMISSION}:${seq}`,
    tenant_id: "acme",
    workspace_id: "w1",
    job_id: "j1",
    node_id: "n1",
    seq,
    state: execution_state in product
      ? product[execution_state as keyof typeof product]
      : (execution_state as ProjectionUpdate["state"]),
    execution_state,
    attempt: 1,
    occurred_at: `2026-03-01T12:00:${String(seq).padStart(2, "0")}.000000Z`,
    trace_id: TRACE,
    ...fields,
  };
}

const IMAGE = { reference: "registry.example/tool:1", digest: `sha256:${"c".repeat(64)}` };

const RECOVERY = { attempt: 1, code: "oom", message: "out of memory", action: "memory_mib 512 → 1024; starts anew" };

/** The life of a job that succeeds. */
export const LIFE = [
  update(1, "accepted", { image: IMAGE }),
  update(2, "launched", { image: IMAGE }),
  update(3, "queued", { scheduler: { job_id: "17", wait_reason: "Priority" } }),
  update(4, "running", { scheduler: { job_id: "17", nodes: ["c1"] }, recovery: RECOVERY }),
  update(5, "succeeded", { result: { exit_code: 0, outputs: [{ name: "out", size: 3, sha256: "ab" }] } }),
];

/** A public key as the adapter passes it on. */
export async function newKey() {
  const x = base64url.encode(crypto.getRandomValues(new Uint8Array(32)));
  const jwk = { kty: "OKP", crv: "Ed25519", x } as const;
  return { key_id: await calculateJwkThumbprint(jwk), jwk };
}

/** Hex SHA-256, as the adapter makes it of a secret. */
export async function hashOf(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The `code` of the ConvexError that `call` ends in. */
export async function errorCode(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConvexError) return (error.data as { code: string }).code;
    throw error;
  }
  throw new Error("the call did not fail");
}
