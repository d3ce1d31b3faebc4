import { paginationOptsValidator, type WithoutSystemFields } from "convex/server";
import type { Doc } from "./_generated/dataModel";
import type { MutationCtx } from "./_generated/server";
import { managerQuery } from "./functions";
import { bounded } from "./paging";

/** Writes one row of the audit log; it commits or vanishes with the change it tells of. */
export async function recordAudit(
  ctx: MutationCtx,
  row: Omit<WithoutSystemFields<Doc<"auditLog">>, "at">,
): Promise<void> {
  await ctx.db.insert("auditLog", { ...row, at: new Date().toISOString() });
}

/** Who changed what in the tenant, and who was refused, the newest first. Errors: `invalid`. */
export const list = managerQuery({
  args: { paginationOpts: paginationOptsValidator },
  handler: async (ctx, { paginationOpts }) => {
    const result = await ctx.db
      .query("auditLog")
      .withIndex("by_tenant", (q) => q.eq("tenant_id", ctx.tenant_id))
      .order("desc")
      .paginate(bounded(paginationOpts));
    const page = result.page.map(({ _id, _creationTime, tenant_id: _, ...row }) => row);
    return { ...result, page };
  },
});
