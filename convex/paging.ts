// How much one page holds, whoever asks.
import type { PaginationOptions } from "convex/server";
import { refusal } from "./functions";

const MAX_PAGE = 100;

/** The options with at most 100 items. Errors: `invalid` (no item, or a part of one). */
export function bounded(options: PaginationOptions): PaginationOptions {
  if (!Number.isInteger(options.numItems) || options.numItems < 1) {
    throw refusal("invalid", "paginationOpts.numItems must be a whole number from 1 on");
  }
  return { ...options, numItems: Math.min(options.numItems, MAX_PAGE) };
}
