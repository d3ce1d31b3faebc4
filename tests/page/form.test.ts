// The submit form reads the contract's own schema: what the contract takes it must let through, what the contract refuses
// it must refuse with the name of the field.
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { BLANK, COMMAND } from "../../web/src/form/command";
import { draftOf, valueOf, type Draft } from "../../web/src/form/draft";
import { faults, kindOf, plain, variantsOf, type Schema } from "../../web/src/form/schema";
import schema from "../../docs/contracts/schemas/submit-job-command.v1.json";

const WHOLE = schema as unknown as Schema;
const EXAMPLES = new URL("../../docs/contracts/examples/", import.meta.url);
const examples = readdirSync(EXAMPLES)
  .filter((name) => name.startsWith("submit-job-command."))
  .map((name) => [name, JSON.parse(readFileSync(new URL(name, EXAMPLES), "utf8")) as Record<string, unknown>] as const);

function asked(command: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(command).filter(([name]) => name in COMMAND.properties!));
}

function filled(value: Record<string, unknown>) {
  return valueOf(COMMAND, COMMAND, draftOf(COMMAND, COMMAND, value));
}

type Fields = { [name: string]: Draft };

/** A draft of a complete command, changed by hand. */
function typed(change: (draft: { profile: Fields; shape: Fields; workload: Fields; all: Fields }) => void) {
  const value = {
    ...BLANK,
    execution_profile: { queue_name: "main" },
    workload: { kind: "container", image: "a:1", argv: ["true"] },
  };
  const all = draftOf(COMMAND, COMMAND, value) as Fields;
  const { fields } = all.workload as unknown as { fields: Fields };
  change({ profile: all.execution_profile as Fields, shape: all.resource_shape as Fields, workload: fields, all });
  return valueOf(COMMAND, COMMAND, all);
}

test("there are examples to hold it to", () => {
  expect(examples.length).toBeGreaterThan(5);
});

describe.each(examples)("%s", (_, command) => {
  test("fits the schema as the form reads it", () => {
    expect(faults(WHOLE, WHOLE, command)).toEqual([]);
  });

  test("comes out of the form as it went in", () => {
    const { value, faults: wrong } = filled(asked(command));

    expect(wrong).toEqual([]);
    expect(withoutPresets(value)).toEqual(withoutPresets(asked(command)));
  });
});

// A checkbox left as it was says nothing, which the contract takes for its default.
function withoutPresets(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value).replaceAll(/,"required":true/g, "")) as unknown;
}

test("a field that is needed and empty is named", () => {
  const { faults: wrong } = filled(BLANK);

  expect(wrong).toContainEqual({ path: "execution_profile.queue_name", message: "is needed" });
  expect(wrong).toContainEqual({ path: "workload.image", message: "is needed" });
});

test.each([
  ["many", "must be a whole number from 1 to 4096"],
  ["1.5", "must be a whole number from 1 to 4096"],
  ["0", "must be a whole number from 1 to 4096"],
  ["", "is needed"],
])("cpu %j is refused", (text, message) => {
  const { faults: wrong } = typed(({ shape }) => (shape.cpu = text));

  expect(wrong).toEqual([{ path: "resource_shape.cpu", message }]);
});

test("a name of a form that the contract does not know is refused", () => {
  const { faults: wrong } = typed(({ profile }) => (profile.queue_name = "two words"));

  expect(wrong.map(({ path }) => path)).toEqual(["execution_profile.queue_name"]);
});

test("a name in a map that is given twice, or does not fit, is refused", () => {
  const row = (name: string) => ({ name, value: "1" }) as unknown as Draft;
  const { faults: wrong } = typed(({ workload }) => (workload.env = [row("A"), row("A"), row("b c")]));

  expect(wrong.map(({ path }) => path).sort()).toEqual(["workload.env.A", "workload.env.b c"]);
});

test("no argument at all is refused, an empty one is an argument", () => {
  expect(typed(({ workload }) => (workload.argv = [])).faults).toEqual([
    { path: "workload.argv", message: "needs at least 1" },
  ]);
  expect(typed(({ workload }) => (workload.argv = ["echo", ""])).value).toMatchObject({
    workload: { argv: ["echo", ""] },
  });
});

test("what is left empty is left out, except where saying nothing means something else", () => {
  expect(typed(() => undefined).value).toEqual({
    execution_profile: { queue_name: "main" },
    resource_shape: { cpu: 1, memory_mib: 256, walltime_seconds: 600 },
    workload: { kind: "container", image: "a:1", argv: ["true"] },
  });
  // An empty checkpoint asks for one, by default values.
  expect(typed(({ workload }) => (workload.checkpoint = { seconds_before: "", signal: "" })).value).toMatchObject({
    workload: { checkpoint: {} },
  });
  // An output that is not required differs from one of which nothing is said.
  const output = { variant: "name", fields: { name: "a.txt", required: false } } as unknown as Draft;
  expect(typed(({ workload }) => (workload.outputs = [output])).value).toMatchObject({
    workload: { outputs: [{ name: "a.txt", required: false }] },
  });
});

test("inputs of a work chain must be JSON", () => {
  const chain = (inputs: string) =>
    typed(
      ({ all }) =>
        (all.workload = { variant: "workchain", fields: { entry_point: "a.b", inputs } } as unknown as Draft),
    );

  expect(chain("{").faults).toEqual([{ path: "workload.inputs", message: "must be JSON" }]);
  expect(chain("[1]").faults).toEqual([{ path: "workload.inputs", message: "must be an object" }]);
  expect(chain('{"x": 1}').value).toMatchObject({ workload: { kind: "workchain", inputs: { x: 1 } } });
});

test("a deadline must be a time", () => {
  expect(typed(({ all }) => (all.deadline = "tomorrow")).faults.map(({ path }) => path)).toEqual(["deadline"]);
  expect(typed(({ all }) => (all.deadline = "2099-01-01T00:00:00Z")).faults).toEqual([]);
});

test("the kinds of inputs and outputs are told apart by what only they have", () => {
  const workload = plain(COMMAND, COMMAND.properties!.workload!);
  const container = variantsOf(COMMAND, workload)[0]!.schema;
  const names = (field: string) => {
    const items = plain(COMMAND, container.properties![field]!.items!);
    return variantsOf(COMMAND, items).map(({ name }) => name);
  };

  expect(variantsOf(COMMAND, workload).map(({ name }) => name)).toEqual(["container", "workchain", "array"]);
  expect(names("inputs")).toEqual(["text", "job", "path", "url"]);
  expect(names("outputs")).toEqual(["name", "glob"]);
});

test("a number above a bound is told from one at it", () => {
  const seconds = { type: "number", exclusiveMinimum: 0, maximum: 10 };

  expect([0, -1, 11].map((value) => faults(seconds, seconds, value).length)).toEqual([1, 1, 1]);
  expect(faults(seconds, seconds, 0)[0]!.message).toBe("must be a number above 0 up to 10");
  expect([0.1, 10].flatMap((value) => faults(seconds, seconds, value))).toEqual([]);
});

// A keyword of the contract that the form does not read would let something through, or hide a field.
test("the form knows every keyword of the schema", () => {
  const read = new Set(
    (
      "$ref $defs $schema type title description default const enum format pattern minLength maxLength minimum exclusiveMinimum maximum items minItems " +
      "maxItems properties patternProperties additionalProperties maxProperties required anyOf oneOf discriminator examples"
    ).split(" "),
  );
  const unread = new Set<string>();
  const visit = (each: Schema) => {
    for (const name of Object.keys(each)) if (!read.has(name)) unread.add(name);
    const maps = [each.$defs, each.properties, each.patternProperties].flatMap((map) => Object.values(map ?? {}));
    const more = typeof each.additionalProperties === "object" ? [each.additionalProperties] : [];
    for (const below of [
      ...maps,
      ...more,
      ...(each.anyOf ?? []),
      ...(each.oneOf ?? []),
      ...(each.items ? [each.items] : []),
    ]) {
      visit(below);
    }
  };
  visit(WHOLE);

  expect([...unread]).toEqual([]);
  expect(kindOf(WHOLE, plain(WHOLE, WHOLE))).toBe("object");
});
