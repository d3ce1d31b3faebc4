// A job before its node speaks of it: the product's own word, with `seq` 0, which the node's first update replaces.
import type { Doc } from "./_generated/dataModel";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import type { ProjectionUpdate } from "./contract";
import { count } from "./usage";

type Command = Pick<Doc<"commands">, "command_id" | "tenant_id" | "workspace_id" | "job_id" | "node_id">;
type Word = Pick<Doc<"jobs">, "state" | "execution_state"> & Partial<Pick<Doc<"jobs">, "message" | "error">>;

export function jobOf(ctx: QueryCtx, tenant_id: string, job_id: string): Promise<Doc<"jobs"> | null> {
  return ctx.db
    .query("jobs")
    .withIndex("by_tenant_job", (q) => q.eq("tenant_id", tenant_id).eq("job_id", job_id))
    .unique();
}

/** Whether only the product has spoken of the job yet. */
export function isProvisional(job: { seq: number }): boolean {
  return job.seq === 0;
}

/** The job as it is shown from its submission on; `trace_id` is the one that its node will carry on. */
export async function announce(ctx: MutationCtx, command: Command, trace_id: string): Promise<void> {
  const now = new Date().toISOString();
  const { command_id, tenant_id, workspace_id, job_id, node_id } = command;
  const word = {
    schema_version: "1" as const,
    projection_id: `${command_id}:0`,
    ...{ tenant_id, workspace_id, job_id, node_id, trace_id },
    ...{ seq: 0, attempt: 1, state: "queued" as const, execution_state: "submitting", occurred_at: now },
  };
  await ctx.db.insert("jobs", { ...word, applied_at: now, search_text: searchText(word) });
  await ctx.db.insert("jobEvents", { ...word, received_at: now, outcome: "applied" });
  await count(ctx, null, word);
}

/** The end of a job that never came to its node, on the timeline too. What a node has told stays as it is. */
export async function conclude(ctx: MutationCtx, job: Doc<"jobs"> | null, word: Word): Promise<void> {
  if (job === null || !isProvisional(job)) return;
  const now = new Date().toISOString();
  const { _id, _creationTime, applied_at: _, search_text, missing: __, message: ___, ...before } = job;
  const after = { ...before, ...word, occurred_at: now };
  await ctx.db.replace(_id, { ...after, applied_at: now, search_text });
  await ctx.db.insert("jobEvents", { ...after, received_at: now, outcome: "applied" });
  await count(ctx, job, after);
}

/** Says why the job waits still, or that it waits no longer; a repetition writes nothing. */
export async function explain(ctx: MutationCtx, job: Doc<"jobs"> | null, message: string | undefined): Promise<void> {
  if (job !== null && isProvisional(job) && job.message !== message) await ctx.db.patch(job._id, { message });
}

/** What a search for jobs looks at: names whole and in their parts. */
export function searchText(job: Pick<ProjectionUpdate, "job_id" | "workspace_id" | "image">): string {
  const names = [job.job_id, job.workspace_id, ...(job.image === undefined ? [] : [job.image.reference])];
  const parts = names.flatMap((name) => name.split(/[^A-Za-z0-9]+/));
  return [...new Set([...names, ...parts])].filter((part) => part !== "").join(" ");
}
