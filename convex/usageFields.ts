// What jobs count for; also the difference that one change makes.
import { v } from "convex/values";

export const usageFields = {
  jobs: v.number(),
  succeeded: v.number(),
  failed: v.number(),
  cancelled: v.number(),
  node_seconds: v.number(),
};
export type Usage = { jobs: number; succeeded: number; failed: number; cancelled: number; node_seconds: number };

export const NOTHING: Usage = { jobs: 0, succeeded: 0, failed: 0, cancelled: 0, node_seconds: 0 };

type Job = {
  state: string;
  timings?: { started?: string; ended?: string };
  scheduler?: { nodes?: string[] };
  result?: { usage?: { walltime_seconds?: number } };
};

/** What one job counts for now. Its node time is that of its last attempt, on all of its nodes, once it has ended. */
export function usageOf(job: Job | null): Usage {
  if (job === null) return NOTHING;
  const { state } = job;
  const ended = state === "succeeded" || state === "failed" || state === "cancelled";
  return {
    jobs: 1,
    succeeded: state === "succeeded" ? 1 : 0,
    failed: state === "failed" ? 1 : 0,
    cancelled: state === "cancelled" ? 1 : 0,
    node_seconds: ended ? seconds(job) * Math.max(1, job.scheduler?.nodes?.length ?? 1) : 0,
  };
}

function seconds({ timings, result }: Job): number {
  const ran = Date.parse(timings?.ended ?? "") - Date.parse(timings?.started ?? "");
  if (Number.isFinite(ran)) return Math.max(0, ran) / 1000;
  const told = result?.usage?.walltime_seconds ?? 0;
  return Number.isFinite(told) ? Math.max(0, told) : 0;
}

export function plus(one: Usage, other: Usage): Usage {
  return combine(one, other, (left, right) => left + right);
}

export function minus(one: Usage, other: Usage): Usage {
  return combine(one, other, (left, right) => left - right);
}

export function isNothing(usage: Usage): boolean {
  return Object.values(usage).every((value) => value === 0);
}

/** The part of a document that counts. */
export function counted({ jobs, succeeded, failed, cancelled, node_seconds }: Usage): Usage {
  return { jobs, succeeded, failed, cancelled, node_seconds };
}

function combine(one: Usage, other: Usage, with_: (left: number, right: number) => number): Usage {
  const names = Object.keys(NOTHING) as (keyof Usage)[];
  return Object.fromEntries(names.map((name) => [name, with_(one[name], other[name])])) as Usage;
}
