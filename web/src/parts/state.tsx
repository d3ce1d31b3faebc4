// A state as a mark and a word: told apart without colour too. One that this version does not know is shown as it came.
import { own } from "../own";

const MARKS: Record<string, string> = {
  queued: "M8 4.5V8l2.2 1.6M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0",
  running: "M5.5 3.5l6.5 4.5-6.5 4.5z",
  succeeded: "M3 8.5l3.2 3.2L13 5",
  failed: "M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6",
  cancelled: "M2.8 8a5.2 5.2 0 1 0 10.4 0A5.2 5.2 0 1 0 2.8 8M4.3 11.7l7.4-7.4",
  attention: "M8 2.5l6 10.5H2zM8 6.5v3M8 11.2v.3",
};
const SAME: Record<string, string> = {
  online: "succeeded",
  offline: "failed",
  degraded: "attention",
  draining: "queued",
  enrolling: "queued",
  revoked: "cancelled",
  submitting: "queued",
  pending: "queued",
  accepted: "queued",
  launched: "queued",
  held: "attention",
  refused: "failed",
};
const LABELS: Record<string, string> = { attention: "needs attention" };

export function State({ value }: { value: string }) {
  const kind = own(MARKS, value) ? value : (own(SAME, value) ?? "unknown");
  return (
    <span className={`state state-${kind}`}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path d={own(MARKS, kind) ?? "M8 8v0"} />
      </svg>
      {own(LABELS, value) ?? value}
    </span>
  );
}
