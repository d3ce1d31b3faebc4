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
import type * as canonical from "../canonical.js";
import type * as checks from "../checks.js";
import type * as contract from "../contract.js";
import type * as enrolments from "../enrolments.js";
import type * as epochs from "../epochs.js";
import type * as functions from "../functions.js";
import type * as gaps from "../gaps.js";
import type * as identity from "../identity.js";
import type * as jobs from "../jobs.js";
import type * as liveness from "../liveness.js";
import type * as nodes from "../nodes.js";
import type * as projections from "../projections.js";
import type * as registration from "../registration.js";
import type * as registry from "../registry.js";
import type * as secrets from "../secrets.js";
import type * as serviceTokens from "../serviceTokens.js";
import type * as sharing from "../sharing.js";
import type * as signing from "../signing.js";
import type * as status from "../status.js";
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
  canonical: typeof canonical;
  checks: typeof checks;
  contract: typeof contract;
  enrolments: typeof enrolments;
  epochs: typeof epochs;
  functions: typeof functions;
  gaps: typeof gaps;
  identity: typeof identity;
  jobs: typeof jobs;
  liveness: typeof liveness;
  nodes: typeof nodes;
  projections: typeof projections;
  registration: typeof registration;
  registry: typeof registry;
  secrets: typeof secrets;
  serviceTokens: typeof serviceTokens;
  sharing: typeof sharing;
  signing: typeof signing;
  status: typeof status;
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
