// The validators of applyProjections against the JSON Schema of ProjectionUpdate: the same fields, types, values and
// optionality. Patterns and bounds are beyond validators; checks.ts holds those.
import { expect, test } from "vitest";
import { projectionUpdate } from "../../convex/contract";
import { applyProjections } from "../../convex/projections";
import contract from "../../docs/contracts/schemas/projection-update.v1.json";

type Shape = string | Shape[] | { [field: string]: Shape };
type Validator = { type: string; value: unknown; values?: { fieldType: Validator } };
type Schema = {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string;
  const?: string;
  enum?: string[];
  anyOf?: Schema[];
  items?: Schema;
  properties?: Record<string, Schema>;
  patternProperties?: Record<string, Schema>;
  required?: string[];
  default?: unknown;
};

const oneOf = (values: unknown[]): string => values.map(String).sort().join(" | ");

function shapeOfValidator({ type, value, values }: Validator): Shape {
  if (type === "object") {
    const fields = Object.entries(value as Record<string, { fieldType: Validator; optional: boolean }>);
    return Object.fromEntries(
      fields.map(([name, field]) => [field.optional ? `${name}?` : name, shapeOfValidator(field.fieldType)]),
    );
  }
  if (type === "array") return [shapeOfValidator(value as Validator)];
  if (type === "record") return { "[name]": shapeOfValidator(values!.fieldType) };
  if (type === "union") return oneOf((value as Validator[]).map((member) => shapeOfValidator(member)));
  return type === "literal" ? String(value) : type;
}

// On the wire a field is absent exactly if it may be null in the model; every other default is written out.
function shapeOfSchema(schema: Schema, root: Schema): Shape {
  if (schema.$ref !== undefined) return shapeOfSchema(root.$defs![schema.$ref.split("/").at(-1)!]!, root);
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return oneOf(schema.enum);
  if (schema.anyOf !== undefined) {
    const present = schema.anyOf.filter(({ type }) => type !== "null");
    if (present.length !== 1) throw new Error(`no such choice is known: ${JSON.stringify(schema)}`);
    return shapeOfSchema(present[0]!, root);
  }
  if (schema.type === "array") return [shapeOfSchema(schema.items!, root)];
  if (schema.type === "object" && schema.patternProperties !== undefined) {
    const [values] = Object.values(schema.patternProperties);
    return { "[name]": shapeOfSchema(values!, root) };
  }
  if (schema.type === "object") {
    const fields = Object.entries(schema.properties!);
    return Object.fromEntries(
      fields.map(([name, field]) => {
        const optional = !schema.required?.includes(name) && field.default === null;
        return [optional ? `${name}?` : name, shapeOfSchema(field, root)];
      }),
    );
  }
  return schema.type === "integer" ? "number" : schema.type!;
}

function validators(): Shape {
  return shapeOfValidator((projectionUpdate as unknown as { json: Validator }).json);
}

/** What applyProjections takes. */
function arguments_(): Shape {
  const exported = applyProjections as unknown as { exportArgs: () => string };
  const args = shapeOfValidator(JSON.parse(exported.exportArgs()) as Validator) as { updates: Shape[] };
  return args.updates[0]!;
}

const agreed = (schema: Schema): Shape => shapeOfSchema(schema, schema);

test("the validators are those of the contract", () => {
  expect(validators()).toEqual(agreed(contract as Schema));
});

test("updates are taken in just these fields, in any state", () => {
  expect(arguments_()).toEqual({ ...(validators() as object), state: "string", execution_state: "string" });
});

const metrics = (schema: Schema): Schema => schema.$defs!.Progress!.properties!.metrics!.anyOf![0]!;

const seeded: [string, (schema: Schema) => void][] = [
  ["a new field", (schema) => (schema.properties!.color = { type: "string" })],
  ["a field less", (schema) => delete schema.properties!.trace_id],
  ["another type", (schema) => (schema.properties!.seq = { type: "string" })],
  ["a new state", (schema) => schema.$defs!.ProductState!.enum!.push("paused")],
  ["a state less", (schema) => schema.$defs!.ExecutionState!.enum!.pop()],
  ["an optional field required", (schema) => delete schema.properties!.message!.default],
  ["a change within a record", (schema) => (metrics(schema).patternProperties = { "^.*$": { type: "string" } })],
  ["a change within a list", (schema) => (schema.$defs!.OutputRecord!.properties!.size = { type: "string" })],
];

test.each(seeded)("drift is seen: %s", (_, change) => {
  const changed = structuredClone(contract) as Schema;
  change(changed);
  expect(validators()).not.toEqual(agreed(changed));
});
