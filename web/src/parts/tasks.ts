// What the projection tells of an array's tasks: while it runs from its progress, at its end from its result.
import type { Job } from "../product";

export type Tasks = { total: number; succeeded: number; failed: number; cancelled: number; interrupted: number };

/** How many tasks are how far, by the newest update; undefined for what is no array, or of which nothing was told yet. */
export function tasksOf({ result, progress }: Pick<Job, "result" | "progress">): Tasks | undefined {
  if (result?.tasks !== undefined) {
    const { total, succeeded, failed, interrupted, cancelled = 0 } = result.tasks;
    return { total, succeeded, failed, cancelled, interrupted };
  }
  const { steps, metrics = {} } = progress ?? {};
  const { tasks_succeeded: succeeded, tasks_failed: failed, tasks_cancelled: cancelled = 0 } = metrics;
  if (steps === undefined || succeeded === undefined || failed === undefined) return undefined;
  return { total: steps, succeeded, failed, cancelled, interrupted: 0 };
}

/** The same in words, for people who do not see the bar as well. */
export function wordsOf({ total, succeeded, failed, cancelled, interrupted }: Tasks): string {
  const others = [
    [failed, "failed"],
    [interrupted, "not ended"],
    [cancelled, "cancelled"],
  ] as const;
  const told = others.filter(([count]) => count > 0).map(([count, name]) => `${count.toLocaleString("en")} ${name}`);
  const done = `${succeeded.toLocaleString("en")} of ${total.toLocaleString("en")} tasks done`;
  return [done, ...told].join(" · ");
}
