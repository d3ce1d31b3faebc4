// The indexes of the lab's database find what reading everything finds, in the same order.
import { compareValues, convexToJson, type JSONValue, type Value } from "convex/values";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Indexes } from "../../lab/convex_server/indexes";

type Row = { _id: string; _creationTime: number; a?: Value; b?: Value };

const FIELDS = ["a", "b.c", "_creationTime", "_id"];
const value = fc.option(fc.constantFrom<Value>(null, 0, 1, -1, 1n, "x", "y", true), { nil: undefined });
const row = fc.record({ id: fc.integer({ min: 0, max: 9 }), gone: fc.boolean(), a: value, c: value });
const json = (of: Value | undefined): JSONValue => (of === undefined ? { $undefined: null } : convexToJson(of));
const inside = ({ b }: Row) => (b as { c?: Value } | undefined)?.c;

function ordered(rows: Row[]): string[] {
  const keys = ({ a, _creationTime, _id, ...rest }: Row) => [a, inside(rest as Row), _creationTime, _id];
  const compare = (one: Row, other: Row) =>
    keys(one).reduce<number>((order, key, at) => order || compareValues(key, keys(other)[at]), 0);
  return [...rows].sort(compare).map(({ _id }) => _id);
}

test("whatever is written, and whenever an index is first read", () => {
  fc.assert(
    fc.property(fc.array(row, { maxLength: 40 }), value, value, fc.nat(40), (writes, a, c, early) => {
      const [indexes, rows] = [new Indexes(), new Map<string, Row>()];
      const range = [
        { type: "Eq", fieldPath: "a", value: json(a) },
        { type: "Eq", fieldPath: "b.c", value: json(c) },
        { type: "Gt", fieldPath: "_creationTime", value: 0 },
      ];
      writes.forEach(({ id, gone, a, c }, at) => {
        if (at === early) for (const depth of [0, 1, 2]) [...indexes.ids("rows", FIELDS, range.slice(0, depth))];
        const [_id, before] = [`${id}rows`, rows.get(`${id}rows`)];
        const after = gone ? undefined : { _id, _creationTime: before?._creationTime ?? at, a, b: { c } as Value };
        if (before === undefined && after === undefined) return;
        indexes.commit("rows", before, after as never);
        if (after === undefined) rows.delete(_id);
        else rows.set(_id, after);
      });
      const all = [...rows.values()];
      const equal = (one: Value | undefined, other: Value | undefined) => compareValues(one, other) === 0;
      const first = all.filter((each) => equal(each.a, a));
      // What an object is compared with (int64 and the like) is left to the reader.
      const known = (of: Value | undefined) => typeof of !== "bigint";
      expect([...indexes.ids("rows", FIELDS)]).toEqual(ordered(all));
      expect([...indexes.ids("rows", FIELDS, range.slice(0, 1))]).toEqual(ordered(known(a) ? first : all));
      const both = known(c) ? first.filter((each) => equal(inside(each), c)) : first;
      expect([...indexes.ids("rows", FIELDS, range)]).toEqual(ordered(known(a) ? both : all));
      expect(new Set(indexes.ids("rows"))).toEqual(new Set(rows.keys()));
      expect([...indexes.ids("others", FIELDS, range)]).toEqual([]);
      const holds = (one: object, { fieldPath }: { fieldPath: string }) => {
        const { a: its, _creationTime } = one as Row;
        if (fieldPath === "_creationTime") return _creationTime > 0;
        return fieldPath === "a" ? equal(its, a) : equal(inside(one as Row), c);
      };
      const found = first.filter((each) => equal(inside(each), c) && each._creationTime > 0);
      expect(indexes.ordered("rows", FIELDS, range, holds).map(({ _id }) => _id)).toEqual(ordered(found));
    }),
    { numRuns: 500 },
  );
});
