// The contract as the functions use it: `contract.generated.ts` is made of `aiida_byoc/contracts`
// (docs/contracts/projection-update.md), the rest stands here. Times are RFC 3339 UTC strings and stay strings.
import { v, type Infer } from "convex/values";
import {
  PRODUCT_STATE,
  productState,
  projectionUpdateFields,
  type ExecutionState,
  type ProductState,
  type ProjectionUpdate,
} from "./contract.generated";

export * from "./contract.generated";
export { projectionUpdateFields as projectionFields };

/** An update as it is taken: also in states that only a later version of the contract knows. */
export const toldUpdate = v.object({ ...projectionUpdateFields, state: v.string(), execution_state: v.string() });
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

/** The update that a stored document carries, without what the product added. */
export function updateOf(document: Shown): ProjectionUpdate {
  const fields = Object.keys(projectionUpdateFields) as (keyof ProjectionUpdate)[];
  const told = { ...document, state: document.raw_state ?? document.state };
  return Object.fromEntries(
    fields.filter((field) => told[field] !== undefined).map((field) => [field, told[field]]),
  ) as ProjectionUpdate;
}
