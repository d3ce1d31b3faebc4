import type { WithoutSystemFields } from "convex/server";
import type { Doc } from "./_generated/dataModel";
import type { MutationCtx } from "./_generated/server";

/** Writes one row of the audit log; it commits or vanishes with the change it tells of. */
export async function recordAudit(
  ctx: MutationCtx,
  row: Omit<WithoutSystemFields<Doc<"auditLog">>, "at">,
): Promise<void> {
  await ctx.db.insert("auditLog", { ...row, at: new Date().toISOString() });
}
