// Why a node is as it is, in words; `convex/README.md` and the heartbeat's contract name the reasons.
import { own } from "../own";

const WORDS: Record<string, string> = {
  no_heartbeat: "Nothing was heard of it for a minute: is its agent running, and can it reach the adapter?",
  never_heard: "It was never heard: enrol it, and start its agent.",
  drain_requested: "You asked it to take no new jobs.",
  drain_reported: "Its operator lets it take no new jobs.",
  clock_skew: "Its clock is wrong by more than a minute.",
  events_undelivered: "What it has to tell has waited for more than five minutes.",
  jobs_quarantined: "Events of some jobs were refused; its operator must look at them.",
  epoch_not_accepted: "Its database is another than before; the product's operator must accept that first.",
  partitions_down: "All partitions of its cluster are down.",
  slurm: "Slurm does not answer it.",
};

export function reasonOf(reason: string): string {
  return own(WORDS, reason) ?? reason;
}
