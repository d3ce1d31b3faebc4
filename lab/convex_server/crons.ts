// What `convex/crons.ts` has run again and again, if there is one.
import { existsSync } from "node:fs";
import type { JSONValue } from "convex/values";
import { FUNCTIONS, type Deployment } from "./functions";

type Schedule = { type: string; seconds?: number; minutes?: number; hours?: number };
type Crons = { crons: Record<string, { name: string; args: [JSONValue]; schedule: Schedule }> };

/** Runs each cron now and at its interval, as a deployment does, and never twice at once. */
export async function runCrons(deployment: Deployment): Promise<void> {
  const file = new URL("crons.ts", FUNCTIONS);
  if (!existsSync(file)) return;
  const { default: crons } = (await import(file.href)) as { default: Crons };
  for (const [cron, { name, args, schedule }] of Object.entries(crons.crons)) {
    if (schedule.type !== "interval")
      throw new Error(`the cron "${cron}" is no interval, and this server knows no other`);
    let running = false;
    const run = async () => {
      if (running) return;
      running = true;
      const answer = await deployment.run({ admin: true }, undefined, name, args[0]);
      if (answer.status === "error") console.error(`cron "${cron}": ${answer.errorMessage}`);
      running = false;
    };
    const seconds = schedule.seconds ?? (schedule.minutes ?? (schedule.hours ?? 0) * 60) * 60;
    setInterval(run, seconds * 1000);
    void run();
  }
}
