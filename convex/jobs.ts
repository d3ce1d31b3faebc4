// What users read of their jobs.
import { paginationOptsValidator, type IndexRange, type IndexRangeBuilder } from "convex/server";
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { attemptsOf, type Attempt } from "./attempts";
import { productState, TERMINAL, type ProductState } from "./contract";
import { notFound, refusal, tenantQuery, type TenantCtx } from "./functions";
import { offlineSince } from "./liveness";
import { bounded } from "./paging";
import { jobOf } from "./submission";
import { timeOf } from "./usage";

const MAX_EVENTS = 500;
const MAX_TEXT = 256;

/**
 * One job: its newest update, when it was applied, and which updates have not arrived. `node_offline_since` of one that has
 * not ended: so long nothing was heard of its node, so it waits, or what is shown may be old. Errors: `not_found`.
 */
export const get = tenantQuery({
  args: { job_id: v.string() },
  handler: async (ctx, { job_id }) => {
    const job = await existing(ctx, job_id);
    const node_offline_since = TERMINAL.has(job.state) ? undefined : await offlineSince(ctx, job.node_id);
    return { ...shown(job), ...(node_offline_since === undefined ? {} : { node_offline_since }) };
  },
});

/**
 * The tenant's jobs that fit all that is asked for, the newest first. Their time is when the product first heard of them:
 * from `since` on and before `until` (RFC 3339 UTC). `text` finds words, or beginnings of words, in the names of job,
 * workspace and image; then the best of at most 1024 come first.
 * Errors: `invalid`.
 */
export const list = tenantQuery({
  args: {
    state: v.optional(productState),
    node_id: v.optional(v.string()),
    text: v.optional(v.string()),
    since: v.optional(v.string()),
    until: v.optional(v.string()),
    paginationOpts: paginationOptsValidator,
  },
  handler: async (ctx, { paginationOpts, ...wanted }) => {
    const { text } = wanted;
    if (text !== undefined && text.length > MAX_TEXT) {
      throw refusal("invalid", `text must not exceed ${MAX_TEXT} characters`);
    }
    const options = bounded(paginationOpts);
    const jobs = text === undefined || text.trim() === "" ? byTime(ctx, wanted) : byText(ctx, text, wanted);
    const result = await jobs.paginate(options);
    return { ...result, page: result.page.map(shown) };
  },
});

type Wanted = { state?: ProductState; node_id?: string; since?: string; until?: string };

/** Every combination of `state` and `node_id` has an index, and each ends in the time. */
function byTime({ db, tenant_id }: TenantCtx, { state, node_id, since, until }: Wanted) {
  const from = since === undefined ? 0 : timeOf("since", since);
  const end = until === undefined ? Infinity : timeOf("until", until);
  if (state !== undefined && node_id !== undefined) {
    return db
      .query("jobs")
      .withIndex("by_tenant_node_state", (q) =>
        within(q.eq("tenant_id", tenant_id).eq("node_id", node_id).eq("state", state), from, end),
      )
      .order("desc");
  }
  if (state !== undefined) {
    return db
      .query("jobs")
      .withIndex("by_tenant_state", (q) => within(q.eq("tenant_id", tenant_id).eq("state", state), from, end))
      .order("desc");
  }
  if (node_id !== undefined) {
    return db
      .query("jobs")
      .withIndex("by_tenant_node", (q) => within(q.eq("tenant_id", tenant_id).eq("node_id", node_id), from, end))
      .order("desc");
  }
  return db
    .query("jobs")
    .withIndex("by_tenant", (q) => within(q.eq("tenant_id", tenant_id), from, end))
    .order("desc");
}

type Timed = IndexRangeBuilder<Doc<"jobs">, ["_creationTime"], 0>;

/** Every index ends in the time, whatever comes before it. */
function within(range: unknown, from: number, end: number): IndexRange {
  return (range as Timed).gte("_creationTime", from).lt("_creationTime", end);
}

/** A search index knows no ranges: what lies outside the time is dropped from the matches, of which there are few. */
function byText({ db, tenant_id }: TenantCtx, text: string, { state, node_id, since, until }: Wanted) {
  const from = since === undefined ? 0 : timeOf("since", since);
  const end = until === undefined ? Infinity : timeOf("until", until);
  const found = db.query("jobs").withSearchIndex("by_text", (q) => {
    const ours = q.search("search_text", text).eq("tenant_id", tenant_id);
    const placed = node_id === undefined ? ours : ours.eq("node_id", node_id);
    return state === undefined ? placed : placed.eq("state", state);
  });
  if (since === undefined && until === undefined) return found;
  return found.filter((q) => q.and(q.gte(q.field("_creationTime"), from), q.lt(q.field("_creationTime"), end)));
}

/**
 * The attempts of a job, the first one first: how each ended, and what the next one does otherwise. None before Slurm has
 * the first one, nor of a job that its node never had.
 * Errors: `not_found`.
 */
export const attempts = tenantQuery({
  args: { job_id: v.string() },
  handler: async (ctx, { job_id }): Promise<Attempt[]> => {
    const { epoch } = await existing(ctx, job_id);
    const events = await ctx.db
      .query("jobEvents")
      .withIndex("by_tenant_job_seq_epoch", (q) => q.eq("tenant_id", ctx.tenant_id).eq("job_id", job_id))
      .order("desc")
      .take(MAX_EVENTS);
    // What a node's former history told is of other attempts.
    return attemptsOf(events.filter((event) => event.epoch === epoch).reverse());
  },
});

/** Everything that was reported of one job, by seq. Errors: `not_found`. */
export const timeline = tenantQuery({
  args: { job_id: v.string(), paginationOpts: paginationOptsValidator },
  handler: async (ctx, { job_id, paginationOpts }) => {
    await existing(ctx, job_id);
    const result = await ctx.db
      .query("jobEvents")
      .withIndex("by_tenant_job_seq_epoch", (q) => q.eq("tenant_id", ctx.tenant_id).eq("job_id", job_id))
      .paginate(bounded(paginationOpts));
    return { ...result, page: result.page.map(told) };
  },
});

async function existing(ctx: TenantCtx, job_id: string): Promise<Doc<"jobs">> {
  const job = await jobOf(ctx, ctx.tenant_id, job_id);
  if (job === null) throw notFound();
  return job;
}

function shown({ _id, _creationTime, search_text: _, ...fields }: Doc<"jobs">) {
  return fields;
}

function told({ _id, _creationTime, ...fields }: Doc<"jobEvents">) {
  return fields;
}
