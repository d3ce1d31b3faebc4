// How a node is, as users see it: judged from its registration, its last heartbeat and the time.
import { v, type Infer } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { isName } from "./checks";

/** A node of which nothing was heard for so long is offline; agents send a heartbeat every 15 s, at most 30. */
export const OFFLINE_AFTER_MS = 60_000;
const MAX_CLOCK_SKEW_SECONDS = 60;
const MAX_UNDELIVERED_SECONDS = 300;
const MAX_REASONS = 32;

export const status = v.object({
  state: v.union(
    v.literal("online"),
    v.literal("degraded"),
    v.literal("offline"),
    v.literal("draining"),
    v.literal("revoked"),
    v.literal("enrolling"),
  ),
  since: v.string(),
  reasons: v.array(v.string()),
});
export type Status = Infer<typeof status>;

export type Evidence = {
  registration: Pick<Doc<"nodeRegistry">, "state" | "keys" | "enrolment"> | null;
  node: Pick<Doc<"nodes">, "heartbeat" | "heard_at"> | null;
  epochs: readonly string[]; // the accepted ones
  now: number;
};

/** The state and its reasons; `since` only where the evidence tells it better than the moment of the judgement. */
export function judge({ registration, node, epochs, now }: Evidence): Omit<Status, "since"> & { since?: string } {
  if (registration?.state === "revoked") return { state: "revoked", reasons: [] };
  const report = node?.heartbeat?.report ?? {};
  const draining = drainReasons(registration?.state, report);
  if (node?.heard_at === undefined) {
    const { keys, enrolment } = registration ?? {};
    const waits = keys?.length === 0 && enrolment !== undefined && enrolment.used_by === undefined;
    return waits ? { state: "enrolling", reasons: [] } : { state: "offline", reasons: ["never_heard", ...draining] };
  }
  const lost = Date.parse(node.heard_at) + OFFLINE_AFTER_MS;
  if (lost <= now) {
    return { state: "offline", reasons: ["no_heartbeat", ...draining], since: new Date(lost).toISOString() };
  }
  const troubles = [...new Set(troublesOf(report, epochs))].sort().slice(0, MAX_REASONS);
  if (draining.length > 0) return { state: "draining", reasons: [...draining, ...troubles] };
  return { state: troubles.length > 0 ? "degraded" : "online", reasons: troubles };
}

function drainReasons(state: string | undefined, report: Record<string, unknown>): string[] {
  return [
    ...(state === "draining" ? ["drain_requested"] : []),
    ...(report.draining === true ? ["drain_reported"] : []),
  ];
}

/** What the report itself says, field by field; a report is the node's word, so nothing of its shape is trusted. */
function troublesOf(report: Record<string, unknown>, epochs: readonly string[]): string[] {
  const { trouble, epoch, partitions } = report;
  const named = Array.isArray(trouble) ? trouble.filter((one) => typeof one === "string" && isName(one)) : [];
  const stranger = typeof epoch === "string" && epochs.length > 0 && !epochs.includes(epoch);
  const down = Array.isArray(partitions) && partitions.length > 0 && partitions.every((one) => one?.up === false);
  return [
    ...(named as string[]),
    ...(Math.abs(numberOf(report.clock_skew_seconds)) > MAX_CLOCK_SKEW_SECONDS ? ["clock_skew"] : []),
    ...(numberOf(report.oldest_undelivered_seconds) > MAX_UNDELIVERED_SECONDS ? ["events_undelivered"] : []),
    ...(numberOf(report.jobs_quarantined) > 0 ? ["jobs_quarantined"] : []),
    ...(stranger ? ["epoch_not_accepted"] : []),
    ...(down ? ["partitions_down"] : []),
  ];
}

function numberOf(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}
