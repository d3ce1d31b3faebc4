import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";

const crons = cronJobs();
crons.interval("sum up what jobs count for", { minutes: 1 }, internal.usage.sumUp, {});
crons.interval("forget old timelines", { hours: 24 }, internal.retention.sweep, { table: "jobEvents" });
crons.interval("forget old commands", { hours: 24 }, internal.retention.sweep, { table: "commands" });
crons.interval("forget old audit rows", { hours: 24 }, internal.retention.sweep, { table: "auditLog" });
export default crons;
