// Whatever the order, the repetitions and the cuts in which a node's updates arrive: the same jobs, the same timeline.
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api";
import { TERMINAL, updateOf, type ProjectionUpdate } from "../../convex/contract";
import { deployment, update } from "./fixtures";
import { dealt, EPOCHS, isAfter, lives, newest, poisoned, sorted } from "./stories";

const MINUTES = 60_000;
const RUNS = 100;
type Expected = { update: ProjectionUpdate; code?: string };

async function accepting() {
  const product = await deployment();
  for (const epoch of EPOCHS) if (epoch !== undefined) await product.accept(epoch);
  return product;
}

test(
  "test_I12 order, repetition, batches and poison between do not change the end",
  async () => {
    const arrivals = lives.chain((all) => {
      const told = all.flatMap((life) => life.told);
      const bad = told.length === 0 ? fc.constant([]) : fc.subarray(told.flatMap(poisoned), { maxLength: 6 });
      return bad
        .chain((poison) =>
          dealt<Expected>([...told.map((update) => ({ update })), ...poison.map(([code, update]) => ({ update, code }))]),
        )
        .map((calls) => ({ told, calls }));
    });
    await fc.assert(
      fc.asyncProperty(arrivals, async ({ told, calls }) => {
        const product = await accepting();
        for (const call of calls) {
          const before = new Map((await product.told("jobs")).map((job) => [job.job_id, job]));
          const outcomes = await product.apply(call.map(({ update }) => update));
          call.forEach(({ code }, index) => {
            if (code === undefined) expect(["applied", "duplicate", "superseded"]).toContain(outcomes[index]);
            else expect(outcomes[index]).toBe(code);
          });
          for (const job of await product.told("jobs")) {
            if (before.has(job.job_id)) expect(isAfter(before.get(job.job_id)!, job)).toBe(false);
          }
        }
        const changed = told.map((one) => ({ ...one, message: "told otherwise" }));
        for (const one of changed) expect(await product.apply([one])).toEqual(["seq_conflict"]);
        expect(sorted(await product.told("jobs"))).toEqual(newest(told));
        expect(sorted(await product.told("jobEvents"))).toEqual(sorted(told));
      }),
      { numRuns: RUNS },
    );
  },
  5 * MINUTES,
);

test(
  "test_I13 a terminal state absorbs and no job goes back, whatever a node tells",
  async () => {
    const anything = fc.record({
      epoch: fc.constantFrom(...EPOCHS),
      seq: fc.integer({ min: 1, max: 6 }),
      state: fc.constantFrom<ProjectionUpdate["execution_state"]>("running", "held", "succeeded", "failed", "cancelled"),
      message: fc.constantFrom("one", "other"),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(anything, { minLength: 1, maxLength: 40 }), async (told) => {
        const product = await accepting();
        let before: ProjectionUpdate | undefined;
        for (const { epoch, seq, state, message } of told) {
          const named = epoch === undefined ? {} : { epoch };
          const [outcome] = await product.apply([update(seq, state, { ...named, message })]);
          const job = updateOf((await product.job())!);
          if (outcome !== "applied") expect(job).toEqual(before);
          else if (before !== undefined) expect(isAfter(job, before)).toBe(true);
          if (before !== undefined && before.epoch === job.epoch && TERMINAL.has(before.state)) {
            expect(job.state).toBe(before.state);
          }
          before = job;
        }
        const keys = (await product.told("jobEvents")).map(({ epoch, seq }) => `${epoch}:${seq}`);
        expect(new Set(keys).size).toBe(keys.length);
      }),
      { numRuns: RUNS },
    );
  },
  5 * MINUTES,
);

test(
  "what the product itself says of a job before its node does changes nothing of that",
  async () => {
    vi.useFakeTimers(); // so nothing is delivered
    const command = { execution_profile: {}, resource_shape: {}, workload: {} };
    const where = { tenant_id: "acme", workspace_id: "w1", node_id: "n1" };
    await fc.assert(
      fc.asyncProperty(
        lives.chain((all) => dealt(all.flatMap(({ told }) => told))),
        async (calls) => {
          const product = await accepting();
          for (const job_id of ["j1", "j2", "j3"]) {
            await product.user("alice").mutation(api.commands.submitJob, { ...where, job_id, command });
          }
          for (const call of calls) {
            for (const outcome of await product.apply(call)) {
              expect(["applied", "duplicate", "superseded"]).toContain(outcome);
            }
          }
          const told = [...new Set(calls.flat())];
          const [jobs, events] = [await product.told("jobs"), await product.told("jobEvents")];
          expect(jobs).toHaveLength(3);
          expect(sorted(jobs.filter(({ seq }) => seq > 0))).toEqual(newest(told));
          expect(sorted(events.filter(({ seq }) => seq > 0))).toEqual(sorted(told));
        },
      ),
      { numRuns: RUNS / 4 },
    );
    vi.useRealTimers();
  },
  5 * MINUTES,
);
