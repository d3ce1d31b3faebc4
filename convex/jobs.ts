// What users read of their jobs.
import { paginationOptsValidator, type PaginationOptions } from "convex/server";
import { v } from "convex/values";
import { notFound, tenantQuery, type TenantCtx } from "./functions";
import { productState } from "./contract";
import type { Doc } from "./_generated/dataModel";

const MAX_PAGE = 100;

/** One job: its newest update, when it was applied, and which updates have not arrived. Errors: `not_found`. */
export const get = tenantQuery({
  args: { job_id: v.string() },
  handler: async (ctx, { job_id }) => withoutSystemFields(await existing(ctx, job_id)),
});

/** The tenant's jobs, the newest first (by when the product first heard of them), all or those in one state. */
export const list = tenantQuery({
  args: { state: v.optional(productState), paginationOpts: paginationOptsValidator },
  handler: async (ctx, { state, paginationOpts }) => {
    const jobs =
      state === undefined
        ? ctx.db.query("jobs").withIndex("by_tenant", (q) => q.eq("tenant_id", ctx.tenant_id))
        : ctx.db
            .query("jobs")
            .withIndex("by_tenant_state", (q) => q.eq("tenant_id", ctx.tenant_id).eq("state", state));
    const result = await jobs.order("desc").paginate(bounded(paginationOpts));
    return { ...result, page: result.page.map(withoutSystemFields) };
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
    return { ...result, page: result.page.map(withoutSystemFields) };
  },
});

async function existing(ctx: TenantCtx, job_id: string): Promise<Doc<"jobs">> {
  const job = await ctx.db
    .query("jobs")
    .withIndex("by_tenant_job", (q) => q.eq("tenant_id", ctx.tenant_id).eq("job_id", job_id))
    .unique();
  if (job === null) throw notFound();
  return job;
}

function bounded(options: PaginationOptions): PaginationOptions {
  return { ...options, numItems: Math.min(options.numItems, MAX_PAGE) };
}

function withoutSystemFields<Document extends Doc<"jobs"> | Doc<"jobEvents">>(
  document: Document,
): Omit<Document, "_id" | "_creationTime"> {
  const { _id, _creationTime, ...fields } = document;
  return fields;
}
