// The one way in for what nodes report. Updates carry full state, so any order of arrival ends in the same job.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { recordAudit } from "./audit";
import { fault, sameContent, submissionOf } from "./checks";
import {
  MAX_UPDATES,
  projectionOutcome,
  projectionUpdate,
  TERMINAL,
  updateOf,
  type ProjectionOutcome,
  type ProjectionUpdate,
  type RejectionCode,
} from "./contract";
import { epochOrder, type EpochOrder } from "./epochs";
import { refusal, serviceMutation, type ServiceCtx } from "./functions";
import { lacks, withLate, withNewest, type SeqRange } from "./gaps";

/**
 * Applies 1 to 100 updates in one transaction and answers for each by itself, in their order.
 * Safe to repeat: what is stored answers `duplicate`.
 * Errors: `unauthenticated`, `forbidden` (the token), `invalid` (the number of updates), `epoch_mismatch`.
 */
export const applyProjections = serviceMutation({
  scope: "projections:write",
  args: { updates: v.array(projectionUpdate) },
  returns: v.object({ outcomes: v.array(projectionOutcome) }),
  handler: async (ctx, { updates }) => {
    if (updates.length < 1 || updates.length > MAX_UPDATES) {
      throw refusal("invalid", `One call takes 1 to ${MAX_UPDATES} updates, not ${updates.length}`);
    }
    const epochs = epochOrder(ctx);
    const outcomes: ProjectionOutcome[] = [];
    for (const update of updates) outcomes.push(await applyOne(ctx, epochs, update));
    return { outcomes };
  },
});

async function applyOne(ctx: ServiceCtx, epochs: EpochOrder, update: ProjectionUpdate): Promise<ProjectionOutcome> {
  const { projection_id, tenant_id, seq } = update;
  const malformed = fault(update);
  if (malformed !== undefined) return reject(ctx, update, malformed);
  if (!(await mayWrite(ctx, update))) return reject(ctx, update, "forbidden");
  const order = await epochs(update.epoch);

  const stored = await storedJob(ctx, update);
  if (stored !== null && stored.node_id !== update.node_id) return reject(ctx, update, "forbidden");
  const seen = await storedEvent(ctx, update);
  if (seen !== null && !sameContent(updateOf(seen), update)) return reject(ctx, update, "seq_conflict", tenant_id);
  if (stored !== null && !sameJob(stored, update)) return reject(ctx, update, "inconsistent", tenant_id);

  const sameEpoch = stored !== null && stored.epoch === update.epoch;
  const newer = stored === null || (sameEpoch ? seq > stored.seq : order > (await epochs(stored.epoch)));
  if (newer && sameEpoch && TERMINAL.has(stored.state) && update.state !== stored.state) {
    return reject(ctx, update, "terminal", tenant_id);
  }
  const now = new Date().toISOString();
  if (seen === null) {
    await ctx.db.insert("jobEvents", { ...update, received_at: now, outcome: newer ? "applied" : "superseded" });
  }
  if (!newer) {
    const missing = await heard(ctx, stored, seq);
    return { projection_id, outcome: seen === null ? "superseded" : "duplicate", ...lowest(missing) };
  }
  // Where two histories of a node part only the node knows: in a new epoch the product asks for all that came before.
  const missing = sameEpoch ? withNewest(stored.missing ?? [], stored.seq, seq) : withNewest([], 0, seq);
  const job = { ...update, applied_at: now, ...(missing.length > 0 ? { missing } : {}) };
  if (stored === null) await ctx.db.insert("jobs", job);
  else await ctx.db.replace(stored._id, job);
  await recordAudit(ctx, { tenant_id, actor: ctx.actor, action: "projection.applied", subject: projection_id });
  return { projection_id, outcome: "applied", ...lowest(missing) };
}

/** Closes the gap that a late update or a repeated one fills; returns what is missing still. */
async function heard(ctx: ServiceCtx, job: Doc<"jobs">, seq: number): Promise<SeqRange[]> {
  const before = job.missing ?? [];
  if (!lacks(before, seq)) return before; // repetition writes nothing
  const missing = withLate(before, seq);
  await ctx.db.patch(job._id, { missing: missing.length > 0 ? missing : undefined });
  return missing;
}

function lowest(missing: readonly SeqRange[]): { missing_from?: number } {
  return missing.length > 0 ? { missing_from: missing[0]!.first } : {};
}

async function mayWrite(ctx: ServiceCtx, update: ProjectionUpdate): Promise<boolean> {
  if (update.node_id !== ctx.node_id) return false;
  const served = await ctx.db
    .query("nodeTenants")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", update.node_id).eq("tenant_id", update.tenant_id))
    .unique();
  return served !== null;
}

async function storedJob(ctx: ServiceCtx, update: ProjectionUpdate): Promise<Doc<"jobs"> | null> {
  return ctx.db
    .query("jobs")
    .withIndex("by_tenant_job", (q) => q.eq("tenant_id", update.tenant_id).eq("job_id", update.job_id))
    .unique();
}

async function storedEvent(ctx: ServiceCtx, update: ProjectionUpdate): Promise<Doc<"jobEvents"> | null> {
  return ctx.db
    .query("jobEvents")
    .withIndex("by_tenant_job_seq_epoch", (q) =>
      q
        .eq("tenant_id", update.tenant_id)
        .eq("job_id", update.job_id)
        .eq("seq", update.seq)
        .eq("epoch", update.epoch),
    )
    .unique();
}

function sameJob(stored: ProjectionUpdate, update: ProjectionUpdate): boolean {
  return stored.workspace_id === update.workspace_id && submissionOf(stored) === submissionOf(update);
}

/** `tenant_id` only once the node was found to serve it: no node writes into the log of strangers. */
async function reject(
  ctx: ServiceCtx,
  update: ProjectionUpdate,
  code: RejectionCode,
  tenant_id?: string,
): Promise<ProjectionOutcome> {
  const { projection_id } = update;
  await recordAudit(ctx, {
    ...(tenant_id === undefined ? {} : { tenant_id }),
    actor: ctx.actor,
    action: "projection.rejected",
    subject: projection_id.slice(0, 128),
    code,
  });
  return { projection_id, outcome: "rejected", code };
}
