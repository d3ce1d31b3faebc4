// What is worth saying of a job in one line.
import { counted, span } from "../format";
import type { Job } from "../product";

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
  switch (state) {
    case "queued":
      if (scheduler?.wait_reason) return `waits in Slurm: ${scheduler.wait_reason}`;
      if (message !== undefined) return message;
      if (recovery) return `attempt ${recovery.attempt} ended with ${recovery.code}; ${recovery.action}`;
      return execution_state === state ? "" : execution_state;
    case "running":
      return progress?.message ?? stepOf(progress) ?? (scheduler?.nodes ? `on ${scheduler.nodes.join(", ")}` : "");
    case "succeeded":
      return [
        counted((result?.outputs.length ?? 0) + (result?.outputs_omitted ?? 0), "output"),
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
