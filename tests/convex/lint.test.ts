// @vitest-environment node
// The lint finds what it is for: each case is a file that somebody might write.
import { ESLint } from "eslint";
import { expect, test } from "vitest";

const eslint = new ESLint();

/** The names of the rules that the text breaks. */
async function broken(filePath: string, text: string): Promise<(string | null)[]> {
  const [result] = await eslint.lintText(text, { filePath });
  return result!.messages.map(({ ruleId }) => ruleId);
}

test.each([
  'import { query } from "./_generated/server";',
  'import { query } from "./_generated/server.js";',
  'import { internalMutation, mutation as raw } from "./_generated/server";',
  'import { action } from "./_generated/server";',
  'import { httpAction } from "./_generated/server";',
  'import * as server from "./_generated/server";',
  'import * as server from "convex/server";',
  'import {\n  queryGeneric,\n} from "convex/server";',
  'import { mutationGeneric as mutation } from "convex/server";',
  'export { query } from "./_generated/server";',
  'export * from "./_generated/server";',
])("a raw builder is banned: %j", async (source) => {
  expect(await broken("convex/seeded.ts", source)).toEqual(["no-restricted-imports"]);
});

test("a raw builder is banned below convex/ too, and does not come in by the back door", async () => {
  const deeper = 'import { query } from "../_generated/server";';
  expect(await broken("convex/deeper/seeded.ts", deeper)).toEqual(["no-restricted-imports"]);
  const later = 'export const server = await import("./_generated/server");';
  expect(await broken("convex/seeded.ts", later)).toEqual(["no-restricted-syntax"]);
});

test("the wrappers alone hold them; what only the key may call, and types, are everybody's", async () => {
  const raw = 'import { action, mutation, query } from "./_generated/server";';
  expect(await broken("convex/functions.ts", raw)).toEqual([]);
  const others = 'import { internalMutation, type MutationCtx } from "./_generated/server";';
  expect(await broken("convex/seeded.ts", others)).toEqual([]);
});

test("no source of a function comes into the page", async () => {
  const source = 'import { judge } from "../../convex/status";';
  expect(await broken("web/src/seeded.tsx", source)).toEqual(["no-restricted-imports"]);
  const named = 'import { api } from "../../convex/_generated/api";';
  expect(await broken("web/src/seeded.tsx", named)).toEqual([]);
});
