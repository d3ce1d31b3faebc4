// The one way in for what nodes report. Updates carry full state, so any order of arrival ends in the same job.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { recordAudit } from "./audit";
import { fault, sameContent, submissionOf } from "./checks";
import {
  MAX_UPDATES,
  projectionOutcome,
  shownOf,
  TERMINAL,
  toldUpdate,
  updateOf,
  type ProjectionOutcome,
  type RejectionCode,
  type Shown,
  type ToldUpdate,
} from "./contract";
import { epochOrder, type EpochOrder } from "./epochs";
import { refusal, serviceMutation, type ServiceCtx } from "./functions";
import { lacks, withLate, withNewest, type SeqRange } from "./gaps";
import { isProvisional, jobOf, searchText } from "./submission";
import { count } from "./usage";

/**
 * Applies 1 to 100 updates in one transaction and answers for each by itself, in their order.
 * Safe to repeat: what is stored answers `duplicate`.
 * Errors: `unauthenticated`, `forbidden` (the token), `invalid` (the number of updates), `epoch_mismatch`.
 */
export const applyProjections = serviceMutation({
  scope: "projections:write",
  args: { updates: v.array(toldUpdate) },
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

async function applyOne(ctx: ServiceCtx, epochs: EpochOrder, update: ToldUpdate): Promise<ProjectionOutcome> {
  const { projection_id, tenant_id, seq } = update;
  const malformed = fault(update);
  if (malformed !== undefined) return reject(ctx, update, malformed);
  if (!(await mayWrite(ctx, update))) return reject(ctx, update, "forbidden");
  const order = await epochs(update.epoch);

  const known = await jobOf(ctx, tenant_id, update.job_id);
  // Whoever placed the job, the product or the node that told of it first: no other node may.
  if (known !== null && known.node_id !== update.node_id) return reject(ctx, update, "forbidden");
  // What the product said itself gives way to whatever the node says first.
  const stored = known === null || isProvisional(known) ? null : known;
  const seen = await storedEvent(ctx, update);
  if (seen !== null && !sameContent(updateOf(seen), update)) return reject(ctx, update, "seq_conflict", tenant_id);
  if (known !== null && !sameJob(known, update)) return reject(ctx, update, "inconsistent", tenant_id);

  const sameEpoch = stored !== null && stored.epoch === update.epoch;
  const newer = stored === null || (sameEpoch ? seq > stored.seq : order > (await epochs(stored.epoch)));
  if (newer && sameEpoch && TERMINAL.has(stored.state) && update.state !== stored.state) {
    return reject(ctx, update, "terminal", tenant_id);
  }
  const now = new Date().toISOString();
  const shown = shownOf(update);
  if (seen === null) {
    await ctx.db.insert("jobEvents", { ...shown, received_at: now, outcome: newer ? "applied" : "superseded" });
  }
  if (!newer) {
    const missing = await heard(ctx, stored, seq);
    return { projection_id, outcome: seen === null ? "superseded" : "duplicate", ...lowest(missing) };
  }
  // Where two histories of a node part only the node knows: in a new epoch the product asks for all that came before.
  const missing = sameEpoch ? withNewest(stored.missing ?? [], stored.seq, seq) : withNewest([], 0, seq);
  const job = {
    ...shown,
    applied_at: now,
    ...(missing.length > 0 ? { missing } : {}),
    search_text: searchText(update),
  };
  if (known === null) await ctx.db.insert("jobs", job);
  else await ctx.db.replace(known._id, job);
  await count(ctx, known, job);
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

async function mayWrite(ctx: ServiceCtx, update: ToldUpdate): Promise<boolean> {
  if (update.node_id !== ctx.node_id) return false;
  const served = await ctx.db
    .query("nodeTenants")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", update.node_id).eq("tenant_id", update.tenant_id))
    .unique();
  return served !== null;
}

async function storedEvent(ctx: ServiceCtx, update: ToldUpdate): Promise<Doc<"jobEvents"> | null> {
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

function sameJob(known: Shown, update: ToldUpdate): boolean {
  const sameSubmission = isProvisional(known) || submissionOf(known) === submissionOf(update);
  return known.workspace_id === update.workspace_id && sameSubmission;
}

/** `tenant_id` only once the node was found to serve it: no node writes into the log of strangers. */
async function reject(
  ctx: ServiceCtx,
  update: ToldUpdate,
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
