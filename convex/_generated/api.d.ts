/* eslint-disable */
/**
 * Generated `api` utility.
 *
 * THIS CODE IS AUTOMATICALLY GENERATED.
 *
 * To regenerate, run `npx convex dev`.
 * @module
 */

import type {
  ApiFromModules,
  FilterApi,
  FunctionReference,
} from "convex/server";
import type * as audit from "../audit.js";
import type * as checks from "../checks.js";
import type * as contract from "../contract.js";
import type * as epochs from "../epochs.js";
import type * as functions from "../functions.js";
import type * as gaps from "../gaps.js";
import type * as jobs from "../jobs.js";
import type * as nodes from "../nodes.js";
import type * as projections from "../projections.js";
import type * as tenancy from "../tenancy.js";

/**
 * A utility for referencing Convex functions in your app's API.
 *
 * Usage:
 * ```js
 * const myFunctionReference = api.myModule.myFunction;
 * ```
 */
declare const fullApi: ApiFromModules<{
  audit: typeof audit;
  checks: typeof checks;
  contract: typeof contract;
  epochs: typeof epochs;
  functions: typeof functions;
  gaps: typeof gaps;
  jobs: typeof jobs;
  nodes: typeof nodes;
  projections: typeof projections;
  tenancy: typeof tenancy;
}>;
export declare const api: FilterApi<
  typeof fullApi,
  FunctionReference<any, "public">
>;
export declare const internal: FilterApi<
  typeof fullApi,
  FunctionReference<any, "internal">
>;
