// Who owns what: everything here is the product's view. Executions belong to the management nodes.
// Apart from `nodes` every document is written for one job, one member, one token or one node's registration: nothing
// is hot.
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
import { productState, projectionFields } from "./contract";
import { seqRange } from "./gaps";
import { enrolment, nodeKey, registryState } from "./identity";
import { status } from "./status";
import { usageFields } from "./usageFields";

// A product shows also what only a later version of the contract knows: `execution_state` is the node's word, whatever it
// is; a `state` that is none of ours stands in `raw_state`, and the job is shown as one that needs attention.
const shownFields = {
  ...projectionFields,
  state: productState,
  execution_state: v.string(),
  raw_state: v.optional(v.string()),
};

export default defineSchema({
  // Written by: tenancy:seed. Read by: tenancy:seed.
  tenants: defineTable({ tenant_id: v.string() }).index("by_tenant", ["tenant_id"]),

  // Written by: tenancy:seed. Read by: every function of a user (functions.ts).
  memberships: defineTable({
    tenant_id: v.string(),
    token_identifier: v.string(), // "<issuer>|<subject>" of the user's token
    role: v.string(),
  }).index("by_token_tenant", ["token_identifier", "tenant_id"]),

  // What changes with every sign of life. Written by: tenancy:seed, nodes:create, nodes:recordHeartbeat, liveness:check.
  // Read by: nodes:list, nodes:get, liveness.ts. Never by applyProjections, which would conflict with every heartbeat.
  nodes: defineTable({
    node_id: v.string(),
    heartbeat: v.optional(v.object({ received_at: v.string(), report: v.record(v.string(), v.any()) })),
    heard_at: v.optional(v.string()), // when that heartbeat came, by the product's clock
    check_at: v.optional(v.string()), // when liveness:check will look; absent: nothing is scheduled
  }).index("by_node", ["node_id"]),

  // Who a node is: its owner, its live keys and its one-time token, in one document, so that each change is one
  // compare-and-set. Written by: registration.ts, for tenancy:seed, nodes.ts and registry.ts. Read by: these.
  nodeRegistry: defineTable({
    node_id: v.string(),
    owner: v.optional(v.string()), // the tenant that manages it; absent: operators do, by tenancy:seed
    state: registryState,
    version: v.number(), // counts the changes that registry:node shows
    keys: v.array(nodeKey), // at most two, the oldest first
    enrolment: v.optional(enrolment), // the newest token, until a newer one or a revocation
    created_at: v.string(),
  })
    .index("by_node", ["node_id"])
    .index("by_owner", ["owner"]),

  // How each node is, and since when. Written by: liveness.ts, only when that changes. Read by: nodes:list, nodes:get.
  nodeStatuses: defineTable({ node_id: v.string(), ...status.fields }).index("by_node", ["node_id"]),

  // Which node serves which tenant, one document per pair.
  // Written by: tenancy:seed, nodes.ts. Read by: projections:applyProjections, nodes.ts, registry:node.
  nodeTenants: defineTable({ node_id: v.string(), tenant_id: v.string() })
    .index("by_node_tenant", ["node_id", "tenant_id"])
    .index("by_tenant", ["tenant_id"]),

  // Nodes that their owner shares with a tenant which has not agreed yet: until then the node may tell it nothing.
  // Written by: sharing.ts. Read by: it.
  nodeOffers: defineTable({ node_id: v.string(), tenant_id: v.string(), owner: v.string(), offered_at: v.string() })
    .index("by_node_tenant", ["node_id", "tenant_id"])
    .index("by_tenant", ["tenant_id"]),

  // Tokens of machines that act for a tenant; of the token itself only the hash.
  // Written by: serviceTokens.ts. Read by: it, registry:serviceToken.
  serviceTokens: defineTable({
    token_id: v.string(),
    tenant_id: v.string(),
    name: v.string(),
    hash: v.string(), // hex SHA-256 of the token's text
    scopes: v.array(v.string()),
    created_at: v.string(),
    created_by: v.string(),
    expires_at: v.string(),
    ended_at: v.optional(v.string()), // revoked or expired
  })
    .index("by_hash", ["hash"])
    .index("by_tenant_token", ["tenant_id", "token_id"]),

  // Which histories of a node's database are believed, in the order of their acceptance; one document per node and
  // epoch. Written by: epochs.ts, for nodes:acceptEpoch and a node's very first epoch, else only read.
  // Read by: projections:applyProjections, nodes:list.
  nodeEpochs: defineTable({
    node_id: v.string(),
    epoch: v.string(),
    ordinal: v.number(),
    accepted_at: v.string(),
  }).index("by_node", ["node_id"]),

  // The newest update of each job; until the node's first one the product's own word, with `seq` 0.
  // Written by: projections:applyProjections, commands.ts, delivery.ts. Read by: these, jobs:get, jobs:list.
  // `_creationTime`, the last field of every index, is when the product first heard of the job.
  jobs: defineTable({
    ...shownFields,
    applied_at: v.string(),
    missing: v.optional(v.array(seqRange)), // gaps below `seq`: what was not heard since the job is in this epoch
    search_text: v.optional(v.string()), // job, workspace and image; absent: stored by an earlier version
  })
    .index("by_tenant_job", ["tenant_id", "job_id"])
    .index("by_tenant", ["tenant_id"])
    .index("by_tenant_state", ["tenant_id", "state"])
    .index("by_tenant_node", ["tenant_id", "node_id"])
    .index("by_tenant_node_state", ["tenant_id", "node_id", "state"])
    .searchIndex("by_text", { searchField: "search_text", filterFields: ["tenant_id", "state", "node_id"] }),

  // The timeline: every accepted update, and what the product itself has to say (`seq` 0); never changed.
  // Written by: projections:applyProjections, commands.ts, delivery.ts. Read by: applyProjections (duplicates),
  // jobs:timeline, jobs:attempts. Removed by: retention.ts.
  jobEvents: defineTable({
    ...shownFields,
    received_at: v.string(),
    outcome: v.union(v.literal("applied"), v.literal("superseded")),
  }).index("by_tenant_job_seq_epoch", ["tenant_id", "job_id", "seq", "epoch"]),

  // What is asked of nodes, from the transaction that wanted it until the node's verdict and some time beyond.
  // Written by: commands.ts, delivery.ts. Read by: these. Removed by: retention.ts.
  commands: defineTable({
    tenant_id: v.string(),
    command_id: v.string(), // the Idempotency-Key too: minted and stored before the first attempt, the same for all
    operation: v.union(v.literal("submit"), v.literal("cancel")),
    workspace_id: v.string(),
    job_id: v.string(),
    node_id: v.string(),
    body: v.string(), // the command as it is sent and signed, canonical JSON
    deadline: v.optional(v.number()), // ms since the epoch
    state: v.union(v.literal("pending"), v.literal("accepted"), v.literal("refused")),
    round: v.number(), // counts what was enqueued: only the newest attempt may change anything
    attempts: v.number(),
    in_doubt: v.number(), // attempts that the node may have stored though no answer says so
    last_problem: v.optional(v.object({ code: v.string(), message: v.string(), at: v.string() })),
    next_at: v.optional(v.string()),
    created_at: v.string(),
    decided_at: v.optional(v.string()),
  })
    .index("by_command", ["command_id"])
    .index("by_tenant_job", ["tenant_id", "job_id"])
    .index("by_node_state", ["node_id", "state"]),

  // Changes of what jobs count for, appended by whoever writes a job, so that no counter is hot; summed up into
  // usageDays by a cron. Written by: usage.ts. Read by: it, usage:summary.
  usageChanges: defineTable({ tenant_id: v.string(), workspace_id: v.string(), day: v.string(), ...usageFields }).index(
    "by_tenant_workspace_day",
    ["tenant_id", "workspace_id", "day"],
  ),

  // What the jobs of one workspace that were first heard of on one day (UTC) count for. Written by: usage:sumUp alone.
  // Read by: it, usage:summary.
  usageDays: defineTable({ tenant_id: v.string(), workspace_id: v.string(), day: v.string(), ...usageFields }).index(
    "by_tenant_workspace_day",
    ["tenant_id", "workspace_id", "day"],
  ),

  // The workspaces that jobs were heard of from. Written by: usage.ts, once each. Read by: it, tenancy:mine.
  workspaces: defineTable({ tenant_id: v.string(), workspace_id: v.string() }).index("by_tenant_workspace", [
    "tenant_id",
    "workspace_id",
  ]),

  // Who changed what users see, and who was refused, in the transaction that did it; never changed.
  // Written by: audit.ts. Read by: audit:list; operators (dashboard, export). Removed by: retention.ts.
  auditLog: defineTable({
    tenant_id: v.optional(v.string()), // absent where the actor has no right to that tenant
    actor: v.string(), // token identifier, or "admin"
    action: v.string(),
    subject: v.string(),
    code: v.optional(v.string()),
    at: v.string(),
  }).index("by_tenant", ["tenant_id"]),
});
