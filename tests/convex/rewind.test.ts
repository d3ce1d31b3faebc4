// A node's relay against the functions: answers get lost, the product is restored from a backup, the node's database
// too, and everything is there in the end, without an operator but for a new epoch.
import type { ConvexError } from "convex/values";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { ProjectionUpdate } from "../../convex/contract";
import { deployment, type Deployment } from "./fixtures";
import { EPOCHS, lives, newest, sorted, type Life } from "./stories";

const MINUTES = 60_000;
const TABLES = ["jobs", "jobEvents", "nodeEpochs"] as const;

/** One job's stream as the node keeps it, and how far the product has acknowledged it. */
class Relay {
  acked = 0;

  constructor(
    private readonly product: Deployment,
    private readonly stream: readonly ProjectionUpdate[],
  ) {}

  done(upTo: number): boolean {
    return this.acked >= Math.min(upTo, this.stream.length);
  }

  /** Sends up to `size` updates, and goes on from there, or back to where the answer asks for. */
  async send(size: number, upTo: number, answerIsLost: boolean): Promise<void> {
    const batch = this.stream.slice(this.acked, Math.min(this.acked + size, upTo));
    if (batch.length === 0) return;
    const answer = (await this.told(batch)).at(-1)!;
    expect(["applied", "duplicate", "superseded"]).toContain(answer.outcome);
    if (answerIsLost) return;
    this.acked += batch.length;
    if (answer.missing_from !== undefined) {
      expect(answer.missing_from).toBeGreaterThanOrEqual(1);
      this.acked = Math.min(this.acked, answer.missing_from - 1);
    }
  }

  /** The answer. The product may not know an epoch (its backup may be older): then its operator puts all in order. */
  private async told(batch: ProjectionUpdate[]) {
    try {
      return await this.product.outcomes(batch);
    } catch (error) {
      expect((error as ConvexError<{ code: string }>).data.code).toBe("epoch_mismatch");
      for (const epoch of EPOCHS) if (epoch !== undefined) await this.product.accept(epoch);
      return this.product.outcomes(batch);
    }
  }
}

type Backup = Map<string, Record<string, unknown>[]>;

async function backup({ t }: Deployment): Promise<Backup> {
  const saved: Backup = new Map();
  await t.run(async (ctx) => {
    for (const table of TABLES) saved.set(table, await ctx.db.query(table).collect());
  });
  return saved;
}

async function restore({ t }: Deployment, from: Backup): Promise<void> {
  await t.run(async (ctx) => {
    for (const table of TABLES) {
      for (const { _id } of await ctx.db.query(table).collect()) await ctx.db.delete(_id);
      for (const { _id, _creationTime, ...row } of from.get(table)!) await ctx.db.insert(table, row as never);
    }
  });
}

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("send" as const),
      job: fc.nat(2),
      size: fc.integer({ min: 1, max: 4 }),
      lost: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: "backup" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "restore" as const }) },
);

/** What the node told before its database was restored: the product knows it, the node's outbox no longer does. */
async function tellWhatWasBefore(product: Deployment, all: readonly Life[]): Promise<void> {
  for (const epoch of EPOCHS) {
    if (epoch !== undefined) await product.accept(epoch);
    const gone = all.flatMap((life) => life.told.filter((one) => one.epoch === epoch && !life.survivors.includes(one)));
    for (const one of gone) await product.apply([one]);
  }
}

test(
  "test_I15 lost answers and restored products heal as soon as the node says one more thing",
  async () => {
    const stories = fc.record({ all: lives, steps: fc.array(step, { maxLength: 25 }), forked: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(stories, async ({ all, steps, forked }) => {
        const product = await deployment();
        if (forked) await tellWhatWasBefore(product, all);
        const relays = all.map(({ survivors }) => new Relay(product, survivors));
        let saved = await backup(product);
        for (const one of steps) {
          if (one.kind === "backup") saved = await backup(product);
          else if (one.kind === "restore") await restore(product, saved);
          // The last word is kept for the end: of a job that says nothing more nobody learns what is missing.
          else await relays[one.job]!.send(one.size, all[one.job]!.survivors.length - 1, one.lost);
        }
        const before = await product.told("jobEvents");
        for (const [index, relay] of relays.entries()) {
          const { survivors } = all[index]!;
          for (let turn = 0; !relay.done(survivors.length); turn += 1) {
            expect(turn).toBeLessThan(100);
            await relay.send(3, survivors.length, false);
          }
        }
        const survivors = all.flatMap((life) => life.survivors);
        const timeline = await product.told("jobEvents");
        expect(timeline).toEqual(expect.arrayContaining(survivors));
        expect(timeline).toEqual(expect.arrayContaining(before));
        expect(sorted(await product.told("jobs"))).toEqual(newest([...before, ...survivors]));
        for (const job of await product.rows("jobs")) {
          if (survivors.some((one) => one.job_id === (job as ProjectionUpdate).job_id)) {
            expect(job).not.toHaveProperty("missing");
          }
        }
      }),
      { numRuns: 100 },
    );
  },
  5 * MINUTES,
);
