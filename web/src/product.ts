// The product's functions that the page calls, and what it reads from their answers.
import type { FunctionReturnType } from "convex/server";
import { ConvexError } from "convex/values";
import { api } from "../../convex/_generated/api";

export { api };
export type Job = FunctionReturnType<typeof api.jobs.get>;
export type Update = FunctionReturnType<typeof api.jobs.timeline>["page"][number];
export type Attempt = FunctionReturnType<typeof api.jobs.attempts>[number];
export type Command = FunctionReturnType<typeof api.commands.list>[number];
export type Node = FunctionReturnType<typeof api.nodes.list>[number];
export type Membership = FunctionReturnType<typeof api.tenancy.mine>[number];

export const TERMINAL: ReadonlySet<string> = new Set(["succeeded", "failed", "cancelled"]);

/** A failure as the reader should be told it; `code` where the product gave one. */
export function told(error: unknown): { code?: string; message: string } {
  if (error instanceof ConvexError) {
    const { code, message } = (error.data ?? {}) as { code?: unknown; message?: unknown };
    if (typeof code === "string" && typeof message === "string") return { code, message };
  }
  // Of anything else the text says more to whoever runs the product than to the reader.
  return { message: "The product could not answer this. Its log says why." };
}

/** What a node reports of itself, as `docs/contracts/node-heartbeat.md` defines it; older nodes say less. */
export type Report = {
  versions?: Record<string, string>;
  queues?: string[];
  runtimes?: string[];
  partitions?: Partition[];
  jobs_active?: number;
  jobs_waiting?: number;
  jobs_running?: number;
  slots_free?: number;
  events_undelivered?: number;
  oldest_undelivered_seconds?: number;
  jobs_quarantined?: number;
  clock_skew_seconds?: number;
};
export type Partition = {
  name: string;
  up: boolean;
  nodes: number;
  nodes_free: number;
  cpus: number;
  cpus_free: number;
  gpus?: number;
};
