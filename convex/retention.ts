// What is forgotten, and when: by cron, in bounded batches. Jobs themselves stay.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { internal } from "./_generated/api";
import { internalMutation, type MutationCtx } from "./_generated/server";
import { TERMINAL } from "./contract";
import { refusal } from "./functions";
import { jobOf } from "./submission";

const DAY_MS = 86_400_000;

const table = v.union(v.literal("jobEvents"), v.literal("commands"), v.literal("auditLog"));
type Table = typeof table.type;

/**
 * How many documents one run looks at, so that it stays within a transaction (16 MiB read) whatever their size: each is
 * read, its job too, and read again to be removed. And the variable that says how many days they are kept, and how many without it.
 */
const RULES: Record<Table, { batch: number; variable: string; days: number }> = {
  jobEvents: { batch: 50, variable: "BYOC_KEEP_EVENTS_DAYS", days: 90 },
  commands: { batch: 20, variable: "BYOC_KEEP_COMMANDS_DAYS", days: 90 },
  auditLog: { batch: 500, variable: "BYOC_KEEP_AUDIT_DAYS", days: 400 },
};

/**
 * Removes what is older than it is kept, and comes back for more until it has looked at all of that. Timelines and
 * commands count from the end of their job: of one that has not ended nothing is removed.
 * Errors: `not_configured` (a variable that is no number of days); nothing is removed then.
 */
export const sweep = internalMutation({
  args: { table, cursor: v.optional(v.string()), before: v.optional(v.number()) },
  returns: v.null(),
  handler: async (ctx, { table, cursor, before = Date.now() - daysOf(table) * DAY_MS }): Promise<null> => {
    const old = await ctx.db
      .query(table)
      .withIndex("by_creation_time", (q) => q.lt("_creationTime", before))
      .paginate({ numItems: RULES[table].batch, cursor: cursor ?? null });
    for (const document of old.page) {
      if (await isOver(ctx, document, before)) await ctx.db.delete(document._id);
    }
    if (!old.isDone) {
      await ctx.scheduler.runAfter(0, internal.retention.sweep, { table, cursor: old.continueCursor, before });
    }
    return null;
  },
});

async function isOver(ctx: MutationCtx, document: Doc<Table>, before: number): Promise<boolean> {
  if (!("job_id" in document)) return true;
  if (document.state === "pending") return false; // a command without a verdict
  const job = await jobOf(ctx, document.tenant_id, document.job_id);
  return job === null || (TERMINAL.has(job.state) && Date.parse(job.applied_at) < before);
}

function daysOf(table: Table): number {
  const { variable, days } = RULES[table];
  const text = process.env[variable];
  if (text === undefined || text === "") return days;
  if (!/^[1-9]\d{0,4}$/.test(text)) throw refusal("not_configured", `${variable} must be a whole number of days from 1 on`);
  return Number(text);
}
