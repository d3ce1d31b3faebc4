// What the submit form asks: SubmitJobCommand, without what the product fills in by itself.
import contract from "../../../docs/contracts/schemas/submit-job-command.v1.json";
import type { Schema } from "./schema";

const FILLED_IN = [
  "schema_version",
  "tenant_id",
  "workspace_id",
  "job_id",
  "management_node_id",
  "requested_by",
  "traceparent",
];
const WHOLE = contract as unknown as Schema;

/** The contract's schema, reduced to the fields that `commands:submitJob` takes in `command`. */
export const COMMAND: Schema = {
  ...WHOLE,
  properties: Object.fromEntries(Object.entries(WHOLE.properties!).filter(([name]) => !FILLED_IN.includes(name))),
  required: WHOLE.required!.filter((name) => !FILLED_IN.includes(name)),
};

/** The rule for names: of workspaces, jobs and nodes. */
export const NAME: Schema = WHOLE.properties!.job_id!;

/** Where a new command begins. */
export const BLANK = {
  resource_shape: { cpu: 1, memory_mib: 256, walltime_seconds: 600 },
  workload: { kind: "container", argv: [""] },
};
