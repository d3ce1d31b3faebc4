// The contract as the functions use it: `contract.generated.ts` is made of `aiida_byoc/contracts`
// (docs/contracts/projection-update.md), the rest stands here. Times are RFC 3339 UTC strings and stay strings.
import { projectionUpdateFields, type ProjectionUpdate } from "./contract.generated";

export * from "./contract.generated";
export { projectionUpdateFields as projectionFields };

/** The update that a stored document carries, without what the product added. */
export function updateOf(document: ProjectionUpdate): ProjectionUpdate {
  const fields = Object.keys(projectionUpdateFields) as (keyof ProjectionUpdate)[];
  return Object.fromEntries(
    fields.filter((field) => document[field] !== undefined).map((field) => [field, document[field]]),
  ) as ProjectionUpdate;
}
