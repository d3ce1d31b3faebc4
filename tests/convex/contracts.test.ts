// @vitest-environment node
// The contracts in a second language: ajv with the schemas of `docs/contracts/schemas` reads the golden messages, and
// refuses the counterexamples where they are at fault; the AsyncAPI document is one by the specification's own schema.
import Ajv from "ajv";
import Ajv2020, { type ErrorObject, type ValidateFunction } from "ajv/dist/2020";
import addFormats from "ajv-formats";
import { expect, test } from "vitest";
import asyncapi from "../../docs/asyncapi.json";
import specification from "@asyncapi/specs/schemas/3.0.0-without-$id.json";

type Counterexample = { why: string; at: string; keyword: string; message: unknown };

function files<Content>(found: Record<string, Content>): [string, Content][] {
  return Object.entries(found).map(([path, content]) => [path.split("/").at(-1)!.replace(".v1.json", ""), content]);
}

const schemas = files(
  import.meta.glob<object>("../../docs/contracts/schemas/*.json", { eager: true, import: "default" }),
);
const goldens = files(
  import.meta.glob<unknown>("../../docs/contracts/examples/*.json", { eager: true, import: "default" }),
);
const counterexamples = files(
  import.meta.glob<Counterexample>("../../docs/contracts/counterexamples/*.json", { eager: true, import: "default" }),
);

const ajv = new Ajv2020({ allErrors: true, strict: true, strictTypes: false });
ajv.addKeyword("discriminator"); // of OpenAPI; `oneOf` beside it says the same
addFormats(ajv);
const validators = new Map<string, ValidateFunction>(schemas.map(([name, schema]) => [name, ajv.compile(schema)]));

function faults(name: string, message: unknown): ErrorObject[] {
  const validate = validators.get(name.split(".")[0]!);
  if (validate === undefined) throw new Error(`${name} has no schema`);
  validate(message);
  return validate.errors ?? [];
}

test("there is something to read", () => {
  expect(schemas.length).toBeGreaterThan(20);
  expect(goldens.length).toBeGreaterThan(80);
  expect(counterexamples.length).toBeGreaterThan(20);
});

test.each(goldens)("golden message: %s", (name, message) => {
  expect(faults(name, message)).toEqual([]);
});

test.each(counterexamples)("refused: %s", (name, { at, keyword, message }) => {
  const found = faults(name, message).map(({ instancePath, keyword }) => [instancePath, keyword]);
  expect(found).toContainEqual([at, keyword]);
});

const specified = new Ajv({ strict: false, validateFormats: false }).compile(specification);

test("the AsyncAPI document is one", () => {
  expect(specified(asyncapi) ? [] : specified.errors).toEqual([]);
});

test.each([
  ["another version", { asyncapi: "4.0.0" }],
  ["no title", { info: { version: "1" } }],
  ["no such action", { operations: { deliverEvents: { ...asyncapi.operations.deliverEvents, action: "post" } } }],
])("an AsyncAPI document with %s is none", (_, change) => {
  expect(specified({ ...asyncapi, ...change })).toBe(false);
});

type Resolved = { $ref?: string } & Record<string, unknown>;

test("every reference of the AsyncAPI document leads somewhere", () => {
  const lost: string[] = [];
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    const { $ref } = value as Resolved;
    if (typeof $ref === "string") {
      const steps = $ref.replace("#/", "").split("/");
      if (steps.reduce<unknown>((place, step) => (place as Resolved | undefined)?.[step], asyncapi) === undefined) lost.push($ref);
    }
    Object.values(value).forEach(visit);
  };
  visit(asyncapi);
  expect(lost).toEqual([]);
});
