// Brings commands to their nodes, with the same key until there is a verdict.
//
// Each attempt is one piece of work in a pool (@convex-dev/workpool): the pool bounds how many are on their way at once,
// and tells when an attempt died before it could say how it ended. How long to wait, and that there is no last attempt, is
// decided here: the pool's own retries are counted, and know no Retry-After.
import { vOnCompleteArgs, Workpool, type WorkpoolComponent } from "@convex-dev/workpool";
import { componentsGeneric } from "convex/server";
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { internal } from "./_generated/api";
import { internalAction, internalMutation, type MutationCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { refusal } from "./functions";
import { chance } from "./names";
import { send } from "./sending";
import { pairOf } from "./sharing";
import { conclude, explain, jobOf } from "./submission";
import { again, answer, wait, type Answer } from "./verdicts";

const MAX_AT_ONCE = 10;
/** So long the adapter may not know yet what the product has changed of a node; it says so with a 404. */
const NEWS_TAKES_MS = 120_000;
const WAKING_TAKES_MS = 5_000;
/** A command has up to 256 KiB, and is read twice. */
const WOKEN_AT_ONCE = 20;

// `_generated` names components only where codegen had a deployment.
const components = componentsGeneric() as unknown as { deliveries: WorkpoolComponent };
const pool = new Workpool(components.deliveries, {
  maxParallelism: MAX_AT_ONCE,
  retryActionsByDefault: false,
  logLevel: "WARN",
});

type Command = Doc<"commands">;
type Problem = { code: string; message: string; remedy?: string };

/** Refuses with `not_configured` where commands cannot be delivered, before anything is stored. */
export function requireConfigured(): void {
  for (const variable of ["BYOC_ADAPTER_URL", "BYOC_COMMAND_ISSUER", "BYOC_COMMAND_KEY", "BYOC_SIGNING_KEY"]) {
    if (!process.env[variable]) {
      throw refusal("not_configured", `The deployment variable ${variable} is not set; convex/README.md says how`);
    }
  }
}

/** Has the command tried after `delay` ms; of several such the last counts. */
export async function enqueue(ctx: MutationCtx, command: Command, delay = 0): Promise<void> {
  const round = command.round + 1;
  const at = Date.now() + delay;
  await ctx.db.patch(command._id, { round, next_at: new Date(at).toISOString() });
  const piece = { id: command._id, round };
  await pool.enqueueAction(ctx, internal.delivery.attempt, piece, {
    onComplete: internal.delivery.completed,
    context: piece,
    ...(delay === 0 ? {} : { runAt: at }),
  });
}

/** Ends a command; `problem` where it was refused. */
export async function settle(
  ctx: MutationCtx,
  command: Command,
  state: "accepted" | "refused",
  problem?: Problem,
): Promise<void> {
  const decided_at = new Date().toISOString();
  const { code, message } = problem ?? {};
  const last_problem = code === undefined ? undefined : { code, message: message!, at: decided_at };
  await ctx.db.patch(command._id, { state, decided_at, next_at: undefined, last_problem });
  await recordAudit(ctx, {
    tenant_id: command.tenant_id,
    actor: "product",
    action: `command.${state}`,
    subject: `${command.operation}:${command.job_id}`,
    ...(code === undefined ? {} : { code }),
  });
}

/** Refuses a submission for good: its job has failed, or was cancelled before it came to be. */
export async function refuse(ctx: MutationCtx, command: Command, problem: Problem): Promise<void> {
  await settle(ctx, command, "refused", problem);
  if (command.operation !== "submit") return;
  const { code, message, remedy } = problem;
  await conclude(
    ctx,
    await jobOf(ctx, command.tenant_id, command.job_id),
    code === "job-cancelled"
      ? { state: "cancelled", execution_state: "cancelled" }
      : {
          ...{ state: "failed", execution_state: "refused" },
          error: { code, message, retryable: false, ...(remedy === undefined ? {} : { remedy }) },
        },
  );
}

/** What a submission ends with that a cancel has come before. */
const WITHDRAWN: Problem = { code: "job-cancelled", message: "The job was cancelled before it was submitted" };

/** Cancels a submission that surely came to no node: nobody has to be asked. */
export async function withdraw(ctx: MutationCtx, submission: Command, cancel: Command): Promise<void> {
  await refuse(ctx, submission, WITHDRAWN);
  await settle(ctx, cancel, "accepted");
}

const work = { id: v.id("commands"), round: v.number() };

/** One attempt. */
export const attempt = internalAction({
  args: work,
  returns: v.null(),
  handler: async (ctx, { id, round }): Promise<null> => {
    const command = (await ctx.runMutation(internal.delivery.claim, { id, round })) as Claimed;
    if (command === null) return null;
    await ctx.runMutation(internal.delivery.record, { id, round, answer: await send(command) });
    return null;
  },
});

const claimed = v.union(
  v.null(),
  v.object({
    tenant_id: v.string(),
    command_id: v.string(),
    operation: v.union(v.literal("submit"), v.literal("cancel")),
    node_id: v.string(),
    job_id: v.string(),
    body: v.string(),
  }),
);
type Claimed = typeof claimed.type;

/** The command, if it is to be sent now. */
export const claim = internalMutation({
  args: work,
  returns: claimed,
  handler: async (ctx, { id, round }): Promise<Claimed> => {
    const command = await ctx.db.get(id);
    if (command === null || command.state !== "pending" || command.round !== round) return null;
    if (expired(command)) {
      await refuse(ctx, command, { code: "command-expired", message: "The deadline of the command has passed" });
      return null;
    }
    // A job that may have come to its node is not pressed on it while a cancel is under way: the cancel's verdict tells.
    if (command.operation === "submit" && (await other(ctx, command)) !== undefined) return null;
    const { tenant_id, command_id, operation, node_id, job_id, body } = command;
    // In doubt from now on: whoever sends it may die at any instant.
    const { attempts, in_doubt } = command;
    await ctx.db.patch(id, { attempts: attempts + 1, in_doubt: in_doubt + 1, next_at: undefined });
    return { tenant_id, command_id, operation, node_id, job_id, body };
  },
});

/** What became of an attempt, and what follows from it. */
export const record = internalMutation({
  args: { ...work, answer },
  returns: v.null(),
  handler: async (ctx, { id, round, answer: told }): Promise<null> => {
    const command = await ctx.db.get(id);
    if (command === null || command.state !== "pending" || command.round !== round) return null;
    if (told.kind === "accepted") await accepted(ctx, command, told.status);
    else if (told.kind === "refused" && !(await isNews(ctx, command, told.code))) await refused(ctx, command, told);
    else await tryAgain(ctx, command, told);
    return null;
  },
});

/** Called by the pool once an attempt is over; counts only for one that died. */
export const completed = internalMutation({
  args: vOnCompleteArgs(v.object(work)),
  returns: v.null(),
  handler: async (ctx, { context: { id, round }, result }): Promise<null> => {
    const command = result.kind === "success" ? null : await ctx.db.get(id);
    if (command === null || command.state !== "pending" || command.round !== round) return null;
    await tryAgain(ctx, command, again("delivery-interrupted", "The attempt was interrupted."));
    return null;
  },
});

/** A node is heard again: what waits for it is tried within seconds, not all at the same instant. */
export const wake = internalMutation({
  args: { node_id: v.string(), cursor: v.optional(v.string()) },
  returns: v.null(),
  handler: async (ctx, { node_id, cursor }): Promise<null> => {
    const waiting = await ctx.db
      .query("commands")
      .withIndex("by_node_state", (q) => q.eq("node_id", node_id).eq("state", "pending"))
      .paginate({ numItems: WOKEN_AT_ONCE, cursor: cursor ?? null });
    for (const command of waiting.page) {
      if (Date.parse(command.next_at ?? "") > Date.now() + WAKING_TAKES_MS) {
        await enqueue(ctx, command, 1 + chance() * WAKING_TAKES_MS);
      }
    }
    if (!waiting.isDone) {
      await ctx.scheduler.runAfter(0, internal.delivery.wake, { node_id, cursor: waiting.continueCursor });
    }
    return null;
  },
});

async function accepted(ctx: MutationCtx, command: Command, status: string | undefined): Promise<void> {
  await settle(ctx, command, "accepted");
  if (command.operation === "submit") {
    await explain(ctx, await jobOf(ctx, command.tenant_id, command.job_id), undefined); // it waits no longer
    return;
  }
  const submission = await other(ctx, command);
  if (submission === undefined) return;
  // The node has never had the job, and will not take it any more; else it has it, and tells its end.
  if (status === "cancelled") {
    await refuse(ctx, submission, WITHDRAWN);
  } else {
    await settle(ctx, submission, "accepted");
  }
}

async function refused(ctx: MutationCtx, command: Command, problem: Problem): Promise<void> {
  await refuse(ctx, command, problem);
  const submission = command.operation === "cancel" ? await other(ctx, command) : undefined;
  if (submission !== undefined) await enqueue(ctx, submission); // nothing stands in its way any more
}

async function tryAgain(ctx: MutationCtx, command: Command, told: Exclude<Answer, { kind: "accepted" }>): Promise<void> {
  const { code, message } = told;
  const clean = told.kind === "refused" || told.clean;
  const in_doubt = command.in_doubt - (clean ? 1 : 0);
  await ctx.db.patch(command._id, { in_doubt, last_problem: { code, message, at: new Date().toISOString() } });
  if (command.operation === "submit") {
    const cancel = in_doubt === 0 ? await other(ctx, command) : undefined;
    if (cancel !== undefined) return withdraw(ctx, command, cancel);
    await explain(ctx, await jobOf(ctx, command.tenant_id, command.job_id), message);
  }
  const pause = wait(command.attempts, told, chance());
  const left = in_doubt === 0 ? (command.deadline ?? Infinity) - Date.now() : Infinity;
  await enqueue(ctx, { ...command, in_doubt }, Math.max(1, Math.min(pause, left)));
}

/** Past its deadline, and surely with no node: one that may be there is for the node to decide. */
function expired({ operation, deadline, in_doubt }: Command): boolean {
  return operation === "submit" && in_doubt === 0 && deadline !== undefined && deadline <= Date.now();
}

/** Whether the 404 may only mean that the adapter has not heard yet that the node serves the tenant. */
async function isNews(ctx: MutationCtx, { node_id, tenant_id }: Command, code: string): Promise<boolean> {
  if (code !== "not-found") return false;
  const pair = await pairOf(ctx, node_id, tenant_id);
  return pair !== null && Date.now() < pair._creationTime + NEWS_TAKES_MS;
}

/** The pending submission of the job that a cancel is for, or the pending cancel of a submission's. */
async function other(ctx: MutationCtx, command: Command): Promise<Command | undefined> {
  const commands = await ctx.db
    .query("commands")
    .withIndex("by_tenant_job", (q) => q.eq("tenant_id", command.tenant_id).eq("job_id", command.job_id))
    .take(100);
  return commands.find(({ operation, state }) => operation !== command.operation && state === "pending");
}
