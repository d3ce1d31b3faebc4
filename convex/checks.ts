// The rules of the contract that one update must keep by itself and that validators cannot say.
import { isProductState, productStateOf, type RejectionCode, type ToldUpdate } from "./contract";

// An event has 48 KiB at most, and 100 updates of this size still fit one transaction (16 MiB written).
const MAX_UPDATE_CHARACTERS = 64 * 1024;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const PROJECTION_ID = /^[0-9a-f-]{36}:([1-9][0-9]*)$/;
const STATE = /^[a-z][a-z_]{0,31}$/;
const EPOCH = /^[0-9a-f]{16}$/;
const UTC_TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/;

export function isUtcTime(text: string): boolean {
  return UTC_TIME.test(text) && !Number.isNaN(Date.parse(text));
}

export function isEpoch(text: string): boolean {
  return EPOCH.test(text);
}

/** Whether `text` may name a tenant, a workspace, a job or a node. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/** Why `update` is refused whatever is stored, or undefined. */
export function fault(update: ToldUpdate): RejectionCode | undefined {
  if (JSON.stringify(update).length > MAX_UPDATE_CHARACTERS) return "too_large";
  const names = [update.tenant_id, update.workspace_id, update.job_id, update.node_id];
  const reported = update.progress === undefined ? [] : [update.progress.reported_at];
  const times = [update.occurred_at, ...reported, ...Object.values(update.timings ?? {})];
  const counts = [update.seq, update.attempt];
  const wellFormed =
    names.every(isName) &&
    times.every(isUtcTime) &&
    [update.state, update.execution_state].every((state) => STATE.test(state)) &&
    counts.every((count) => Number.isSafeInteger(count) && count >= 1) &&
    (update.epoch === undefined || isEpoch(update.epoch)) &&
    PROJECTION_ID.exec(update.projection_id)?.[1] === String(update.seq);
  if (!wellFormed) return "invalid";
  // What this version does not know it cannot hold against anything.
  const expected = productStateOf(update.execution_state);
  const known = expected !== undefined && isProductState(update.state);
  return known && update.state !== expected ? "inconsistent" : undefined;
}

/** The submission an update tells of: the part of its id that all updates of a job share. */
export function submissionOf(update: Pick<ToldUpdate, "projection_id">): string {
  return update.projection_id.slice(0, update.projection_id.indexOf(":"));
}

/** Whether two updates say the same, whatever the order of their fields. */
export function sameContent(one: ToldUpdate, other: ToldUpdate): boolean {
  return canonical(one) === canonical(other);
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  fields.sort(([one], [other]) => (one < other ? -1 : 1));
  return `{${fields.map(([name, field]) => `${JSON.stringify(name)}:${canonical(field)}`).join(",")}}`;
}
