// What is worth saying of a job in one line.
import { counted, span } from "../format";
import type { Job } from "../product";
import { tasksOf, wordsOf } from "./tasks";

type Told = Pick<
  Job,
  "state" | "execution_state" | "message" | "scheduler" | "progress" | "result" | "error" | "recovery"
>;

export function summaryOf({
  state,
  execution_state,
  message,
  scheduler,
  progress,
  result,
  error,
  recovery,
}: Told): string {
  const tasks = tasksOf({ result, progress });
  switch (state) {
    case "queued":
      if (scheduler?.wait_reason) return `waits in Slurm: ${scheduler.wait_reason}`;
      if (message !== undefined) return message;
      if (recovery) return `attempt ${recovery.attempt} ended with ${recovery.code}; ${recovery.action}`;
      return execution_state === state ? "" : execution_state;
    case "running":
      if (tasks !== undefined) return wordsOf(tasks);
      return progress?.message ?? stepOf(progress) ?? (scheduler?.nodes ? `on ${scheduler.nodes.join(", ")}` : "");
    case "succeeded":
      return [
        tasks === undefined ? "" : wordsOf(tasks),
        tasks === undefined && counted((result?.outputs.length ?? 0) + (result?.outputs_omitted ?? 0), "output"),
        result?.usage?.walltime_seconds === undefined ? "" : `ran ${span(result.usage.walltime_seconds)}`,
      ]
        .filter(Boolean)
        .join(" · ");
    case "failed":
      return error === undefined ? (message ?? "") : `${error.code}: ${error.message}`;
    default:
      return message ?? "";
  }
}

export function stepOf(progress: Job["progress"]): string | undefined {
  if (progress?.step === undefined) return undefined;
  return `step ${progress.step}${progress.steps === undefined ? "" : ` of ${progress.steps}`}`;
}
