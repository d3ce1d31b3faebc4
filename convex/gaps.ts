// Which updates of a job are still missing, as ranges of seq, ascending and disjoint.
import { v, type Infer } from "convex/values";

export const seqRange = v.object({ first: v.number(), last: v.number() });
export type SeqRange = Infer<typeof seqRange>;

/** Whether `seq` is among the missing. */
export function lacks(missing: readonly SeqRange[], seq: number): boolean {
  return missing.some(({ first, last }) => first <= seq && seq <= last);
}

/** The gaps once `seq` was applied on top of `newest` (0: nothing yet). */
export function withNewest(missing: readonly SeqRange[], newest: number, seq: number): SeqRange[] {
  return seq > newest + 1 ? [...missing, { first: newest + 1, last: seq - 1 }] : [...missing];
}

/** The gaps once `seq`, older than the newest, has arrived. */
export function withLate(missing: readonly SeqRange[], seq: number): SeqRange[] {
  return missing.flatMap((range) =>
    seq < range.first || seq > range.last
      ? [range]
      : [
          { first: range.first, last: seq - 1 },
          { first: seq + 1, last: range.last },
        ].filter(({ first, last }) => first <= last),
  );
}
