// What users ask of nodes. A command, its key and its audit row are one transaction; `delivery.ts` brings it to the node.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import type { QueryCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { canonicalJson } from "./canonical";
import { isName } from "./checks";
import { taskRange, TERMINAL } from "./contract";
import { enqueue, requireConfigured, withdraw } from "./delivery";
import { memberMutation, notFound, refusal, tenantQuery, type TenantMutationCtx } from "./functions";
import { intentOf, MAX_BYTES } from "./intent";
import { newId, newTrace } from "./names";
import { pairOf } from "./sharing";
import { announce, isProvisional, jobOf } from "./submission";

const MAX_USER_ID = 128;
const MAX_REASON = 500;
const MAX_RANGES = 1_000;
const MAX_COMMANDS = 100; // of one job

/**
 * Submits a job to a node that serves the tenant. It is there at once, and waits for the node's verdict as long as that
 * takes. `command` is a SubmitJobCommand without what the product knows itself (intent.ts), as an object or as JSON text.
 * The same once more, with the same `job_id`, answers the same.
 * Errors: `not_found` (the node), `invalid`, `conflict` (the job_id is taken), `not_configured`.
 */
export const submitJob = memberMutation({
  args: {
    workspace_id: v.string(),
    node_id: v.string(),
    job_id: v.optional(v.string()),
    command: v.union(v.string(), v.record(v.string(), v.any())),
  },
  returns: v.object({ job_id: v.string(), command_id: v.string() }),
  handler: async (ctx, given) => {
    requireConfigured();
    const { tenant_id, actor } = ctx;
    const { workspace_id, node_id } = given;
    const job_id = given.job_id ?? `job-${newId()}`;
    for (const [field, name] of Object.entries({ workspace_id, node_id, job_id })) {
      if (!isName(name)) {
        const form = "1 to 64 letters, digits, hyphens or underscores, a letter or digit first";
        throw refusal("invalid", `${field} must have ${form}`);
      }
    }
    const { intent, deadline } = intentOf(given.command);
    if ((await pairOf(ctx, node_id, tenant_id)) === null) throw notFound();
    const body = { ...intent, ...addressed(ctx, { workspace_id, job_id, node_id }) };
    const taken = await jobOf(ctx, tenant_id, job_id);
    if (taken !== null) {
      const earlier = (await commandsOf(ctx, tenant_id, job_id)).find(({ operation }) => operation === "submit");
      if (earlier !== undefined && canonicalJson(withoutTrace(earlier.body)) === canonicalJson(body)) {
        return { job_id, command_id: earlier.command_id };
      }
      throw refusal("conflict", "This job_id is taken: choose another, or leave it out");
    }
    if (deadline !== undefined && deadline <= Date.now()) {
      throw refusal("invalid", "command.deadline has passed: give a later one, or none");
    }
    const trace_id = newTrace(32);
    const command = await store(ctx, "submit", { ...body, traceparent: `00-${trace_id}-${newTrace(16)}-01` }, deadline);
    await announce(ctx, command, trace_id);
    await recordAudit(ctx, { tenant_id, actor, action: "job.submit_requested", subject: job_id });
    await enqueue(ctx, command);
    return { job_id, command_id: command.command_id };
  },
});

/**
 * Stops a job, wherever it is, or with `tasks` these tasks of an array: ranges of numbers, both ends included. A job that
 * surely never came to its node is cancelled at once. Repeating it asks once.
 * Errors: `not_found`, `conflict` (the job has ended; tasks: or no node has taken it), `invalid`, `not_configured`.
 */
export const cancelJob = memberMutation({
  args: { job_id: v.string(), tasks: v.optional(v.array(taskRange)), reason: v.optional(v.string()) },
  returns: v.object({ command_id: v.string() }),
  handler: async (ctx, { job_id, tasks, reason }) => {
    requireConfigured();
    const { tenant_id, actor } = ctx;
    const job = await jobOf(ctx, tenant_id, job_id);
    if (job === null) throw notFound();
    const commands = await commandsOf(ctx, tenant_id, job_id);
    const asked = commands.find(
      ({ operation, state, body }) =>
        operation === "cancel" && state !== "refused" && canonicalJson(tasksOf(body)) === canonicalJson(tasks ?? null),
    );
    if (asked !== undefined) return { command_id: asked.command_id };
    if (TERMINAL.has(job.state)) throw refusal("conflict", "This job has ended");
    if (reason !== undefined && !isPlain(reason)) {
      throw refusal("invalid", `reason must have 1 to ${MAX_REASON} characters, none of them a control character`);
    }
    if (tasks !== undefined) {
      if (!areRanges(tasks)) {
        throw refusal("invalid", `tasks must have 1 to ${MAX_RANGES} ranges of whole numbers, first not above last`);
      }
      if (isProvisional(job)) throw refusal("conflict", "No node has taken this job yet: cancel it as a whole, or wait");
      if (commands.length >= MAX_COMMANDS - 1) {
        throw refusal("conflict", "Tasks of this job were cancelled too often: name more tasks at once, or cancel it as a whole");
      }
    }
    const { workspace_id, node_id } = job;
    const body = {
      ...addressed(ctx, { workspace_id, job_id, node_id }),
      ...(tasks === undefined ? {} : { tasks }),
      ...(reason === undefined ? {} : { reason }),
      traceparent: `00-${job.trace_id}-${newTrace(16)}-01`,
    };
    const command = await store(ctx, "cancel", body);
    await recordAudit(ctx, { tenant_id, actor, action: "job.cancel_requested", subject: job_id });
    const submission = commands.find(({ operation }) => operation === "submit");
    if (tasks === undefined && submission?.state === "pending" && submission.in_doubt === 0) {
      await withdraw(ctx, submission, command);
    } else {
      await enqueue(ctx, command);
    }
    return { command_id: command.command_id };
  },
});

/** What was asked about a job, the oldest first, and why it is not decided yet. Errors: `not_found` (the job). */
export const list = tenantQuery({
  args: { job_id: v.string() },
  handler: async (ctx, { job_id }) => {
    if ((await jobOf(ctx, ctx.tenant_id, job_id)) === null) throw notFound();
    const commands = await commandsOf(ctx, ctx.tenant_id, job_id);
    return commands.map(({ command_id, operation, state, attempts, last_problem, next_at, created_at }) => ({
      ...{ command_id, operation, state, attempts, created_at },
      ...(last_problem === undefined ? {} : { last_problem }),
      ...(next_at === undefined ? {} : { next_at }),
    }));
  },
});

/**
 * What was submitted, to submit it again: `command` as JSON text. Null for a job that came to its node another way, or
 * whose command is older than commands are kept. Errors: `not_found` (the job).
 */
export const submitted = tenantQuery({
  args: { job_id: v.string() },
  handler: async (ctx, { job_id }) => {
    if ((await jobOf(ctx, ctx.tenant_id, job_id)) === null) throw notFound();
    const commands = await commandsOf(ctx, ctx.tenant_id, job_id);
    const submission = commands.find(({ operation }) => operation === "submit");
    if (submission === undefined) return null;
    const { workspace_id, node_id, body } = submission;
    const { intent } = intentOf(withoutAddress(body));
    return { workspace_id, node_id, command: JSON.stringify(intent) };
  },
});

type Address = { workspace_id: string; job_id: string; node_id: string };

function addressed({ tenant_id, user_id }: TenantMutationCtx, { workspace_id, job_id, node_id }: Address) {
  const requested_by = { user_id: user_id.slice(0, MAX_USER_ID) };
  return { schema_version: "1", tenant_id, workspace_id, job_id, management_node_id: node_id, requested_by };
}

async function store(
  ctx: TenantMutationCtx,
  operation: "submit" | "cancel",
  sent: ReturnType<typeof addressed> & { traceparent: string },
  deadline?: number,
): Promise<Doc<"commands">> {
  const body = canonicalJson(sent);
  if (new TextEncoder().encode(body).length > MAX_BYTES) {
    throw refusal("invalid", `command must not exceed ${MAX_BYTES} bytes of JSON: pass data by reference`);
  }
  const { tenant_id, workspace_id, job_id, management_node_id: node_id } = sent;
  const id = await ctx.db.insert("commands", {
    ...{ tenant_id, command_id: newId(), operation, workspace_id, job_id, node_id, body },
    ...(deadline === undefined ? {} : { deadline }),
    ...{ state: "pending", round: 0, attempts: 0, in_doubt: 0, created_at: new Date().toISOString() },
  });
  return (await ctx.db.get(id))!;
}

/** A submission, the cancels of tasks, and a cancel for each time that one was refused. */
function commandsOf(ctx: QueryCtx, tenant_id: string, job_id: string): Promise<Doc<"commands">[]> {
  return ctx.db
    .query("commands")
    .withIndex("by_tenant_job", (q) => q.eq("tenant_id", tenant_id).eq("job_id", job_id))
    .take(MAX_COMMANDS);
}

function withoutTrace(body: string): object {
  const { traceparent: _, ...rest } = JSON.parse(body) as { traceparent?: string };
  return rest;
}

function withoutAddress(body: string): Record<string, unknown> {
  const address = ["schema_version", "tenant_id", "workspace_id", "job_id", "management_node_id", "requested_by"];
  const all = Object.entries(withoutTrace(body));
  return Object.fromEntries(all.filter(([member]) => !address.includes(member)));
}

function tasksOf(body: string): unknown {
  return (JSON.parse(body) as { tasks?: unknown }).tasks ?? null;
}

function areRanges(tasks: { first: number; last: number }[]): boolean {
  const whole = tasks.every(({ first, last }) => Number.isSafeInteger(first) && Number.isSafeInteger(last));
  return whole && tasks.length >= 1 && tasks.length <= MAX_RANGES && tasks.every(({ first, last }) => 0 <= first && first <= last);
}

function isPlain(text: string): boolean {
  return text.length >= 1 && text.length <= MAX_REASON && !/\p{Cc}/u.test(text);
}
