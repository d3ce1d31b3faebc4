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
import type * as attempts from "../attempts.js";
import type * as audit from "../audit.js";
import type * as canonical from "../canonical.js";
import type * as checks from "../checks.js";
import type * as commands from "../commands.js";
import type * as contract from "../contract.js";
import type * as crons from "../crons.js";
import type * as delivery from "../delivery.js";
import type * as enrolments from "../enrolments.js";
import type * as epochs from "../epochs.js";
import type * as functions from "../functions.js";
import type * as gaps from "../gaps.js";
import type * as identity from "../identity.js";
import type * as intent from "../intent.js";
import type * as jobs from "../jobs.js";
import type * as liveness from "../liveness.js";
import type * as names from "../names.js";
import type * as nodes from "../nodes.js";
import type * as paging from "../paging.js";
import type * as projections from "../projections.js";
import type * as registration from "../registration.js";
import type * as registry from "../registry.js";
import type * as retention from "../retention.js";
import type * as secrets from "../secrets.js";
import type * as sending from "../sending.js";
import type * as serviceTokens from "../serviceTokens.js";
import type * as sharing from "../sharing.js";
import type * as signing from "../signing.js";
import type * as status from "../status.js";
import type * as submission from "../submission.js";
import type * as tenancy from "../tenancy.js";
import type * as usage from "../usage.js";
import type * as usageFields from "../usageFields.js";
import type * as verdicts from "../verdicts.js";

/**
 * A utility for referencing Convex functions in your app's API.
 *
 * Usage:
 * ```js
 * const myFunctionReference = api.myModule.myFunction;
 * ```
 */
declare const fullApi: ApiFromModules<{
  attempts: typeof attempts;
  audit: typeof audit;
  canonical: typeof canonical;
  checks: typeof checks;
  commands: typeof commands;
  contract: typeof contract;
  crons: typeof crons;
  delivery: typeof delivery;
  enrolments: typeof enrolments;
  epochs: typeof epochs;
  functions: typeof functions;
  gaps: typeof gaps;
  identity: typeof identity;
  intent: typeof intent;
  jobs: typeof jobs;
  liveness: typeof liveness;
  names: typeof names;
  nodes: typeof nodes;
  paging: typeof paging;
  projections: typeof projections;
  registration: typeof registration;
  registry: typeof registry;
  retention: typeof retention;
  secrets: typeof secrets;
  sending: typeof sending;
  serviceTokens: typeof serviceTokens;
  sharing: typeof sharing;
  signing: typeof signing;
  status: typeof status;
  submission: typeof submission;
  tenancy: typeof tenancy;
  usage: typeof usage;
  usageFields: typeof usageFields;
  verdicts: typeof verdicts;
}>;
export declare const api: FilterApi<
  typeof fullApi,
  FunctionReference<any, "public">
>;
export declare const internal: FilterApi<
  typeof fullApi,
  FunctionReference<any, "internal">
>;
