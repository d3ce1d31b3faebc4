// What stands in the address of the page.
import { describe, expect, test } from "vitest";
import { argumentsOf, filtersOf, queryOf } from "../../web/src/filters";
import { parse, to } from "../../web/src/router";

const NOW = Date.parse("2026-03-08T12:00:30.000Z");

describe("places", () => {
  test.each([
    ["", [], ""],
    ["#/acme/jobs", ["acme", "jobs"], ""],
    ["#/acme/jobs/a%2Fb?state=failed", ["acme", "jobs", "a/b"], "state=failed"],
    ["#/a%ZZ", ["a%ZZ"], ""],
  ])("%j", (hash, path, query) => {
    const place = parse(hash);

    expect(place.path).toEqual(path);
    expect(place.query.toString()).toBe(query);
  });

  test("go to an address and back", () => {
    const path = ["ac/me", "jobs", "ü 1?#"];
    const place = parse(to(path, { text: "a&b", state: undefined }));

    expect(place.path).toEqual(path);
    expect([...place.query]).toEqual([["text", "a&b"]]);
  });
});

describe("filters", () => {
  test.each([
    [
      "state=running&node_id=n-1&text=relax&window=7d",
      { state: "running", node_id: "n-1", text: "relax", window: "7d" },
    ],
    ["state=melted&window=constructor&text=%20&since=never&other=1", {}],
    ["since=2026-03-01T00:00Z", { since: "2026-03-01T00:00:00.000Z" }],
  ])("%s", (query, filters) => {
    expect(filtersOf(new URLSearchParams(query))).toEqual(filters);
  });

  test("go to the address and back", () => {
    const filters = {
      state: "failed",
      text: "x y",
      since: "2026-03-01T00:00:00.000Z",
      until: "2026-03-02T00:00:00.000Z",
    } as const;

    expect(filtersOf(parse(to(["acme", "jobs"], queryOf(filters))).query)).toEqual(filters);
  });

  test("a window counts back from now, in whole minutes, so that the question stays the same for one", () => {
    expect(argumentsOf({ state: "failed", window: "24h" }, NOW)).toEqual({
      state: "failed",
      since: "2026-03-07T12:00:00.000Z",
    });
    expect(argumentsOf({ window: "1h" }, NOW)).toEqual(argumentsOf({ window: "1h" }, NOW + 29_000));
  });
});
