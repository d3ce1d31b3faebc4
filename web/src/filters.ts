// Which jobs are listed, as the address says it: so a list can be bookmarked, shared and gone back to.
import { own } from "./own";

export const STATES = ["queued", "running", "succeeded", "failed", "cancelled", "attention"] as const;
export type State = (typeof STATES)[number];

/** How far back, by name: a bookmark of "the last day" stays one. */
export const WINDOWS: Record<string, { label: string; seconds: number }> = {
  "1h": { label: "last hour", seconds: 3_600 },
  "24h": { label: "last 24 hours", seconds: 86_400 },
  "7d": { label: "last 7 days", seconds: 7 * 86_400 },
  "30d": { label: "last 30 days", seconds: 30 * 86_400 },
};

export type Filters = {
  state?: State;
  node_id?: string;
  text?: string;
  window?: string;
  since?: string;
  until?: string;
};

/** The filters of an address; what is no filter, or none that is known, is left out. */
export function filtersOf(query: URLSearchParams): Filters {
  const found: Filters = {};
  const state = STATES.find((known) => known === query.get("state"));
  if (state !== undefined) found.state = state;
  const window = query.get("window");
  if (window !== null && own(WINDOWS, window)) found.window = window;
  for (const name of ["node_id", "text"] as const) {
    const value = query.get(name)?.trim();
    if (value) found[name] = value;
  }
  for (const name of ["since", "until"] as const) {
    const time = Date.parse(query.get(name) ?? "");
    if (!Number.isNaN(time)) found[name] = new Date(time).toISOString();
  }
  return found;
}

/** What `jobs:list` is asked; `now` in milliseconds is the moment from which windows count back. */
export function argumentsOf({ window, ...filters }: Filters, now: number): Omit<Filters, "window"> {
  const chosen = window === undefined ? undefined : own(WINDOWS, window);
  if (chosen === undefined) return filters;
  // Whole minutes: the same question for all who ask within one, and no new one with every rendering.
  const since = new Date(Math.floor(now / 60_000) * 60_000 - chosen.seconds * 1000).toISOString();
  return { ...filters, since };
}

/** The address's part that says these filters. */
export function queryOf(filters: Filters): Record<string, string | undefined> {
  return { ...filters };
}
