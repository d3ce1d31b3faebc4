// The attempts of a job, told from its timeline.
import type { Doc } from "./_generated/dataModel";
import { isProvisional } from "./submission";

type Event = Doc<"jobEvents">;
export type Attempt = {
  attempt: number;
  state: string;
  started?: string;
  ended?: string;
  scheduler?: NonNullable<Event["scheduler"]>;
  error?: { code: string; message: string; retryable?: boolean; remedy?: string };
  message?: string;
  action?: string; // what is done otherwise in the next attempt
};

/** An attempt of these has not begun: the node has the job, and Slurm has not. */
const BEFORE: ReadonlySet<string> = new Set(["accepted", "launched"]);

/** The attempts in the order in which they took place; `events` by seq, of one history of the node. */
export function attemptsOf(events: readonly Event[]): Attempt[] {
  const attempts = new Map<number, Attempt>();
  for (const event of events) {
    const { attempt, execution_state, timings, scheduler, error, message, recovery } = event;
    if (isProvisional(event) || BEFORE.has(execution_state)) continue;
    if (recovery !== undefined) end(attempts, event);
    const known = attempts.get(attempt);
    attempts.set(attempt, {
      ...known,
      attempt,
      state: execution_state,
      ...(timings?.started === undefined ? {} : { started: timings.started }),
      ...(timings?.ended === undefined ? {} : { ended: timings.ended }),
      ...(scheduler === undefined ? {} : { scheduler: { ...known?.scheduler, ...scheduler } }),
      ...(error === undefined ? {} : { error }),
      ...(message === undefined ? {} : { message }),
    });
  }
  return [...attempts.values()].sort((one, other) => one.attempt - other.attempt);
}

/** An event of a further attempt says how the one before has ended. */
function end(attempts: Map<number, Attempt>, { recovery, occurred_at }: Event): void {
  const { attempt, code, message, action } = recovery!;
  const known = attempts.get(attempt);
  if (known?.action !== undefined) return; // said before
  attempts.set(attempt, {
    ended: occurred_at,
    ...known,
    attempt,
    state: "failed",
    error: { code, message },
    action,
  });
}
