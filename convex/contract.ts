// ProjectionUpdate as `docs/contracts/projection-update.md` defines it; a test compares these validators with the
// JSON Schema there. Times are RFC 3339 UTC strings and stay strings.
import { v, type Infer } from "convex/values";

export const MAX_UPDATES = 100;

export const productState = v.union(
  v.literal("queued"),
  v.literal("running"),
  v.literal("succeeded"),
  v.literal("failed"),
  v.literal("cancelled"),
  v.literal("attention"),
);
export type ProductState = Infer<typeof productState>;

const executionState = v.union(
  v.literal("accepted"),
  v.literal("launched"),
  v.literal("queued"),
  v.literal("running"),
  v.literal("held"),
  v.literal("succeeded"),
  v.literal("failed"),
  v.literal("cancelled"),
);
type ExecutionState = Infer<typeof executionState>;

/** What users see of each execution state. */
export const PRODUCT_STATE: Record<ExecutionState, ProductState> = {
  accepted: "queued",
  launched: "queued",
  queued: "queued",
  running: "running",
  held: "attention",
  succeeded: "succeeded",
  failed: "failed",
  cancelled: "cancelled",
};

/** States that nothing but themselves may follow. */
export const TERMINAL: ReadonlySet<ProductState> = new Set(["succeeded", "failed", "cancelled"]);

export const projectionFields = {
  schema_version: v.literal("1"),
  projection_id: v.string(),
  tenant_id: v.string(),
  workspace_id: v.string(),
  job_id: v.string(),
  node_id: v.string(),
  execution_id: v.optional(v.string()),
  epoch: v.optional(v.string()), // absent: a node of an older version
  seq: v.number(),
  state: productState,
  execution_state: executionState,
  attempt: v.number(),
  message: v.optional(v.string()),
  image: v.optional(v.object({ reference: v.string(), digest: v.string() })),
  scheduler: v.optional(
    v.object({
      job_id: v.string(),
      name: v.optional(v.string()),
      queue: v.optional(v.string()),
      nodes: v.optional(v.array(v.string())),
      wait_reason: v.optional(v.string()),
    }),
  ),
  timings: v.optional(
    v.object({
      accepted: v.optional(v.string()),
      queued: v.optional(v.string()),
      started: v.optional(v.string()),
      ended: v.optional(v.string()),
    }),
  ),
  progress: v.optional(
    v.object({
      fraction: v.optional(v.number()),
      step: v.optional(v.number()),
      steps: v.optional(v.number()),
      message: v.optional(v.string()),
      metrics: v.optional(v.record(v.string(), v.number())),
      reported_at: v.string(),
    }),
  ),
  result: v.optional(
    v.object({
      exit_code: v.number(),
      image_digest: v.optional(v.string()),
      outputs: v.array(
        v.object({
          name: v.string(),
          size: v.number(),
          sha256: v.string(),
          location: v.optional(v.union(v.literal("repository"), v.literal("remote"))),
        }),
      ),
      outputs_omitted: v.optional(v.number()), // how many more there are than told
      usage: v.optional(
        v.object({
          cpu_seconds: v.optional(v.number()),
          peak_rss_mib: v.optional(v.number()),
          walltime_seconds: v.optional(v.number()),
        }),
      ),
      values: v.optional(v.array(v.object({ name: v.string(), json_text: v.string() }))),
    }),
  ),
  error: v.optional(
    v.object({
      code: v.string(),
      message: v.string(),
      retryable: v.boolean(),
      remedy: v.optional(v.string()),
    }),
  ),
  recovery: v.optional(
    v.object({
      attempt: v.number(), // the one that ended
      code: v.string(),
      message: v.string(),
      action: v.string(),
    }),
  ),
  occurred_at: v.string(),
  trace_id: v.string(),
};

export const projectionUpdate = v.object(projectionFields);
export type ProjectionUpdate = Infer<typeof projectionUpdate>;

/** An update as it is taken: also in states that only a later version of the contract knows. */
export const toldUpdate = v.object({ ...projectionFields, state: v.string(), execution_state: v.string() });
export type ToldUpdate = Infer<typeof toldUpdate>;

/** What users see of an execution state, or undefined for one that this version does not know. */
export function productStateOf(execution_state: string): ProductState | undefined {
  return Object.hasOwn(PRODUCT_STATE, execution_state) ? PRODUCT_STATE[execution_state as ExecutionState] : undefined;
}

export function isProductState(state: string): state is ProductState {
  return productState.members.some(({ value }) => value === state);
}

/** An update as it is stored: a state that is none of ours stands in `raw_state`, and the job needs attention. */
export function shownOf(update: ToldUpdate): Shown {
  const { state, ...rest } = update;
  return isProductState(state) ? { ...rest, state } : { ...rest, state: "attention", raw_state: state };
}
export type Shown = Omit<ToldUpdate, "state"> & { state: ProductState; raw_state?: string };

/** Why one update is refused; none of them is cured by sending the same update again. */
export const rejectionCode = v.union(
  v.literal("invalid"), // breaks a rule of the contract that validators cannot say
  v.literal("too_large"),
  v.literal("forbidden"), // this node may not write that job
  v.literal("inconsistent"), // state against execution_state, or another workspace or submission than stored
  v.literal("seq_conflict"), // that epoch and seq are stored with other content
  v.literal("terminal"), // in this epoch the job has ended otherwise
);
export type RejectionCode = Infer<typeof rejectionCode>;

export const projectionOutcome = v.object({
  projection_id: v.string(),
  outcome: v.union(
    v.literal("applied"),
    v.literal("duplicate"),
    v.literal("superseded"),
    v.literal("rejected"),
  ),
  code: v.optional(rejectionCode),
  missing_from: v.optional(v.number()), // the lowest seq of the job that is missing below its newest
});
export type ProjectionOutcome = Infer<typeof projectionOutcome>;

/** The update that a stored document carries, without what the product added. */
export function updateOf(document: Shown): ProjectionUpdate {
  const fields = Object.keys(projectionFields) as (keyof ProjectionUpdate)[];
  const told = { ...document, state: document.raw_state ?? document.state };
  return Object.fromEntries(
    fields.filter((field) => told[field] !== undefined).map((field) => [field, told[field]]),
  ) as ProjectionUpdate;
}
