// Random lives of jobs on one node whose database may have been restored, and what must come of them.
import fc from "fast-check";
import { PRODUCT_STATE, type ProjectionUpdate } from "../../convex/contract";
import { update } from "./fixtures";

/** In the order of their acceptance; without a name: told by a node of an older version. */
export const EPOCHS = [undefined, "aaaaaaaaaaaaaaaa", "0123456789abcdef"];

const ongoing = fc.constantFrom<ProjectionUpdate["execution_state"]>("accepted", "launched", "queued", "running", "held");
const terminal = fc.constantFrom<ProjectionUpdate["execution_state"]>("succeeded", "failed", "cancelled");

/** One history of a job: it goes on after `kept` of what was before, and may end, and say its end again. */
const history = fc.record({
  kept: fc.nat(6),
  states: fc.array(ongoing, { minLength: 1, maxLength: 5 }),
  end: fc.option(fc.tuple(terminal, fc.integer({ min: 1, max: 2 })), { nil: undefined }),
});

/** What a node told of one job: every history in its epoch, and `survivors`, what its outbox holds in the end. */
export type Life = { told: ProjectionUpdate[]; survivors: ProjectionUpdate[] };

const life = (index: number): fc.Arbitrary<Life> =>
  fc.tuple(fc.option(history), fc.option(history), fc.option(history)).map((histories) => {
    const told: ProjectionUpdate[] = [];
    let survivors: ProjectionUpdate[] = [];
    histories.forEach((one, epoch) => {
      if (one === null) return;
      survivors = survivors.slice(0, one.kept);
      const [end, times] = one.end ?? ["held", 0];
      for (const state of [...one.states, ...Array<typeof end>(times).fill(end)]) {
        const seq = survivors.length + 1;
        const named = EPOCHS[epoch] === undefined ? {} : { epoch: EPOCHS[epoch] };
        const submission = `00000000-0000-4000-8000-00000000000${index}`;
        survivors.push(
          update(seq, state, {
            ...named,
            job_id: `j${index}`,
            projection_id: `${submission}:${seq}`,
            message: `history ${epoch}`,
          }),
        );
        told.push(survivors.at(-1)!);
      }
    });
    return { told, survivors };
  });

export const lives = fc.tuple(life(1), life(2), life(3));

/** Deals `items` out in another order, some of them twice, in calls of another size. */
export const dealt = <Item>(items: Item[]): fc.Arbitrary<Item[][]> =>
  fc
    .record({
      order: fc.shuffledSubarray([...items, ...items], { minLength: items.length }),
      sizes: fc.infiniteStream(fc.integer({ min: 1, max: 12 })),
    })
    .map(({ order, sizes }) => {
      const rest = items.filter((item) => !order.includes(item));
      const all = [...order, ...rest];
      const calls: Item[][] = [];
      while (all.length > 0) calls.push(all.splice(0, sizes.next().value as number));
      return calls;
    });

export function position(one: ProjectionUpdate): [number, number] {
  return [EPOCHS.indexOf(one.epoch), one.seq];
}

export function isAfter(one: ProjectionUpdate, other: ProjectionUpdate): boolean {
  const [[epoch, seq], [otherEpoch, otherSeq]] = [position(one), position(other)];
  return epoch === otherEpoch ? seq > otherSeq : epoch > otherEpoch;
}

/** The fold in order: of each job the newest update of the newest epoch. */
export function newest(updates: readonly ProjectionUpdate[]): ProjectionUpdate[] {
  const jobs = new Map<string, ProjectionUpdate>();
  for (const one of [...updates].sort((left, right) => (isAfter(left, right) ? 1 : -1))) jobs.set(one.job_id, one);
  return sorted([...jobs.values()]);
}

export function sorted(updates: readonly ProjectionUpdate[]): ProjectionUpdate[] {
  const key = (one: ProjectionUpdate) => [one.job_id, ...position(one)].join();
  return [...updates].sort((left, right) => (key(left) < key(right) ? -1 : 1));
}

/** Spoiled copies of `one`, each with the code by which it is refused wherever it stands. */
export function poisoned(one: ProjectionUpdate): [string, ProjectionUpdate][] {
  const other = PRODUCT_STATE[one.execution_state] === "queued" ? "running" : "queued";
  return [
    ["invalid", { ...one, attempt: 0 }],
    ["invalid", { ...one, epoch: "not hexadecimal" }],
    ["too_large", { ...one, message: "x".repeat(64 * 1024) }],
    ["forbidden", { ...one, node_id: "n2" }],
    ["forbidden", { ...one, tenant_id: "rival" }],
    ["inconsistent", { ...one, state: other }],
  ];
}
