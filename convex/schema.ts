// Who owns what: everything here is the product's view. Executions belong to the management nodes.
// Apart from `nodes` every document is written for one job, one member or one node-and-tenant pair: nothing is hot.
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
import { projectionFields } from "./contract";
import { seqRange } from "./gaps";

export default defineSchema({
  // Written by: tenancy:seed. Read by: tenancy:seed.
  tenants: defineTable({ tenant_id: v.string() }).index("by_tenant", ["tenant_id"]),

  // Written by: tenancy:seed. Read by: every query of a user (functions.ts).
  memberships: defineTable({
    tenant_id: v.string(),
    token_identifier: v.string(), // "<issuer>|<subject>" of the user's token
    role: v.string(),
  }).index("by_token_tenant", ["token_identifier", "tenant_id"]),

  // Written by: tenancy:seed, nodes:recordHeartbeat. Read by: nodes:list, nodes:recordHeartbeat.
  // Never by applyProjections, which would conflict with every heartbeat.
  nodes: defineTable({
    node_id: v.string(),
    heartbeat: v.optional(v.object({ received_at: v.string(), report: v.record(v.string(), v.any()) })),
  }).index("by_node", ["node_id"]),

  // Which node serves which tenant, one document per pair.
  // Written by: tenancy:seed. Read by: projections:applyProjections, nodes:list.
  nodeTenants: defineTable({ node_id: v.string(), tenant_id: v.string() })
    .index("by_node_tenant", ["node_id", "tenant_id"])
    .index("by_tenant", ["tenant_id"]),

  // Which histories of a node's database are believed, in the order of their acceptance; one document per node and
  // epoch. Written by: epochs.ts, for nodes:acceptEpoch and a node's very first epoch, else only read.
  // Read by: projections:applyProjections, nodes:list.
  nodeEpochs: defineTable({
    node_id: v.string(),
    epoch: v.string(),
    ordinal: v.number(),
    accepted_at: v.string(),
  }).index("by_node", ["node_id"]),

  // The newest update of each job. Written by: projections:applyProjections. Read by: it, jobs:get, jobs:list.
  jobs: defineTable({
    ...projectionFields,
    applied_at: v.string(),
    missing: v.optional(v.array(seqRange)), // gaps below `seq`: what was not heard since the job is in this epoch
  })
    .index("by_tenant_job", ["tenant_id", "job_id"])
    .index("by_tenant", ["tenant_id"])
    .index("by_tenant_state", ["tenant_id", "state"]),

  // The timeline: every accepted update, never changed.
  // Written by: projections:applyProjections. Read by: it (duplicates), jobs:timeline.
  jobEvents: defineTable({
    ...projectionFields,
    received_at: v.string(),
    outcome: v.union(v.literal("applied"), v.literal("superseded")),
  }).index("by_tenant_job_seq_epoch", ["tenant_id", "job_id", "seq", "epoch"]),

  // Who changed what users see, and who was refused, in the transaction that did it; never changed.
  // Written by: audit.ts. Read by: operators (dashboard, export).
  auditLog: defineTable({
    tenant_id: v.optional(v.string()), // absent where the actor has no right to that tenant
    actor: v.string(), // token identifier, or "admin"
    action: v.string(),
    subject: v.string(),
    code: v.optional(v.string()),
    at: v.string(),
  }).index("by_tenant", ["tenant_id"]),
});
