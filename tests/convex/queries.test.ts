// Every query goes by an index, and none reads all that a tenant has.
import { expect, test } from "vitest";
import schema from "../../convex/schema";

const sources = import.meta.glob<string>("../../convex/*.ts", { eager: true, query: "?raw", import: "default" });

/** Tables of which a tenant may have any number of documents. Of the others a tenant or node has few. */
const ENDLESS = ["jobs", "jobEvents", "commands", "auditLog", "usageChanges", "usageDays", "workspaces", "memberships"];
/** A search has 1024 matches at most. */
const MAY_FILTER = 'withSearchIndex("by_text"';

/** What is wrong with the queries in a source, each in one word. */
function faults(source: string): string[] {
  const found: string[] = [];
  for (const { 0: query, index } of source.matchAll(/\.query\(\s*("?)(\w+)\1\s*\)/g)) {
    const name = /\w+(?="?\s*\)$)/.exec(query)![0];
    const rest = source.slice(index + query.length);
    const statement = rest.slice(0, rest.indexOf(";"));
    if (!/^\s*\.with(Search)?Index\(/.test(statement)) found.push(`scan ${name}`);
    const isTable = name in schema.tables;
    if (statement.includes(".collect()") && (!isTable || ENDLESS.includes(name))) found.push(`collect ${name}`);
    if (/\bfor await\b/.test(source)) found.push(`iterate ${name}`);
  }
  const filters = [...source.matchAll(/\.filter\(\(q\)|\.filter\(\s*q\b|\bfilter\(\w+ => \w+\.(eq|and|or)/g)].length;
  if (filters > 0 && !(filters === 1 && source.includes(MAY_FILTER))) found.push("filter");
  if (/\.fullTableScan\(/.test(source)) found.push("scan");
  return found;
}

test.each(Object.entries(sources))("%s", (_, source) => {
  expect(faults(source)).toEqual([]);
});

test("there are queries to look at", () => {
  const count = Object.values(sources).join("").match(/\.query\(/g)!.length;
  expect(count).toBeGreaterThan(25);
  const endless = Object.keys(schema.tables).filter((table) => ENDLESS.includes(table));
  expect(endless.sort()).toEqual([...ENDLESS].sort());
});

test.each([
  ['ctx.db.query("jobs").take(5);', "scan jobs"],
  ['ctx.db.query("nodes").collect();', "scan nodes"],
  ['ctx.db\n  .query("jobs")\n  .withIndex("by_tenant", (q) => q.eq("tenant_id", t))\n  .collect();', "collect jobs"],
  ['ctx.db.query(table).withIndex("by_tenant").collect();', "collect table"],
  ['ctx.db.query("jobs").withIndex("by_tenant").filter((q) => q.eq(q.field("state"), s)).take(5);', "filter"],
])("the fence sees %j", (source, fault) => {
  expect(faults(source)).toContain(fault);
});
