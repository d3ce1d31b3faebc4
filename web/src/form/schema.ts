// The part of JSON Schema 2020-12 that the contracts are written in, read as a form reads it: which kind of field each
// schema is, and what is wrong with a value, told by the path of the field at fault.
export type Schema = {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string;
  title?: string;
  description?: string;
  default?: unknown;
  const?: unknown;
  enum?: readonly unknown[];
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  properties?: Record<string, Schema>;
  patternProperties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  maxProperties?: number;
  required?: readonly string[];
  anyOf?: readonly Schema[];
  oneOf?: readonly Schema[];
  discriminator?: { propertyName: string };
  examples?: readonly unknown[];
};

export type Fault = { path: string; message: string };

export type Kind =
  | "constant"
  | "choice"
  | "choices"
  | "boolean"
  | "number"
  | "text"
  | "time"
  | "list"
  | "map"
  | "json"
  | "object"
  | "union";

/** What `schema` says itself: references followed, and of "something or null" the something, as `nullable`. */
export function plain(root: Schema, schema: Schema): Schema & { nullable?: boolean } {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.replace("#/$defs/", "");
    const { $ref: _, ...own } = schema;
    return { ...plain(root, root.$defs?.[name] ?? {}), ...own };
  }
  const some = schema.anyOf?.filter((each) => each.type !== "null") ?? [];
  if (schema.anyOf !== undefined && some.length === 1) {
    const { anyOf: _, ...own } = schema;
    return { ...plain(root, some[0]!), ...own, nullable: true };
  }
  return schema;
}

/** How a plain schema is asked for. */
export function kindOf(root: Schema, schema: Schema): Kind {
  if (schema.const !== undefined) return "constant";
  if (schema.enum !== undefined) return "choice";
  if (schema.oneOf !== undefined) return "union";
  switch (schema.type) {
    case "boolean":
      return "boolean";
    case "integer":
    case "number":
      return "number";
    case "string":
      return schema.format === "date-time" ? "time" : "text";
    case "array":
      return plain(root, schema.items ?? {}).enum === undefined ? "list" : "choices";
    case "object":
      if (schema.properties !== undefined) return "object";
      return schema.patternProperties === undefined ? "json" : "map";
    default:
      return "json";
  }
}

/** Whether a text is asked for in several lines. */
export function isLong({ maxLength = 0 }: Schema): boolean {
  return maxLength >= 100_000;
}

export type Variant = { name: string; schema: Schema };

/** The variants of a union, by the value that tells them apart or else by the field that only one of them needs. */
export function variantsOf(root: Schema, union: Schema): Variant[] {
  const schemas = (union.oneOf ?? []).map((each) => plain(root, each));
  return schemas.map((schema, index) => {
    const told = union.discriminator && schema.properties?.[union.discriminator.propertyName]?.const;
    const others = schemas.filter((_, other) => other !== index).flatMap(({ required = [] }) => required);
    const own = schema.required?.find((name) => !others.includes(name));
    return { name: typeof told === "string" ? told : (own ?? schema.title ?? String(index + 1)), schema };
  });
}

/** Which variant `value` is; the first where nothing says. */
export function variantOf(root: Schema, union: Schema, value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const tag = union.discriminator && (value as Record<string, unknown>)[union.discriminator.propertyName];
  const found = variantsOf(root, union).findIndex(({ name }) => name === tag || name in value);
  return Math.max(0, found);
}

export function joined(path: string, name: string | number): string {
  return path === "" ? String(name) : `${path}.${name}`;
}

/** Everything that is wrong with `value`; empty where it fits. */
export function faults(root: Schema, given: Schema, value: unknown, path = ""): Fault[] {
  const schema = plain(root, given);
  if (value === null && schema.nullable) return [];
  const wrong = (message: string) => [{ path, message }];
  if (schema.const !== undefined) return value === schema.const ? [] : wrong(`must be ${String(schema.const)}`);
  if (schema.enum !== undefined) {
    return schema.enum.includes(value) ? [] : wrong(`must be one of ${schema.enum.join(", ")}`);
  }
  if (schema.oneOf !== undefined) {
    if (schema.discriminator !== undefined) {
      const tag = (value as Record<string, unknown> | null)?.[schema.discriminator.propertyName];
      const names = variantsOf(root, schema).map(({ name }) => name);
      const where = joined(path, schema.discriminator.propertyName);
      if (!names.includes(tag as string)) return [{ path: where, message: `must be one of ${names.join(", ")}` }];
    }
    return faults(root, variantsOf(root, schema)[variantOf(root, schema, value)]?.schema ?? {}, value, path);
  }
  switch (schema.type) {
    case "string":
      return typeof value === "string" ? ofText(schema, value).flatMap(wrong) : wrong("must be text");
    case "boolean":
      return typeof value === "boolean" ? [] : wrong("must be true or false");
    case "integer":
    case "number": {
      const isNumber = typeof value === "number" && (schema.type === "number" || Number.isInteger(value));
      const above = isNumber && value >= (schema.minimum ?? -Infinity) && value > (schema.exclusiveMinimum ?? -Infinity);
      const fits = above && value <= (schema.maximum ?? Infinity);
      return fits ? [] : wrong(`must be ${schema.type === "integer" ? "a whole number" : "a number"}${limits(schema)}`);
    }
    case "array":
      return Array.isArray(value) ? ofList(root, schema, value, path) : wrong("must be a list");
    case "object": {
      const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
      return isObject ? ofObject(root, schema, value as Record<string, unknown>, path) : wrong("must be an object");
    }
    default:
      return [];
  }
}

/** " from 1 to 10", " of at least 1", " above 0", or nothing. */
export function limits({ minimum, exclusiveMinimum, maximum }: Schema): string {
  if (exclusiveMinimum !== undefined) return ` above ${exclusiveMinimum}${maximum === undefined ? "" : ` up to ${maximum}`}`;
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`;
  if (minimum !== undefined) return ` of at least ${minimum}`;
  return maximum === undefined ? "" : ` of at most ${maximum}`;
}

function ofText({ minLength = 0, maxLength = Infinity, pattern, format }: Schema, value: string): string[] {
  const length = [...value].length;
  if (length < minLength) return [minLength === 1 ? "must not be empty" : `must have at least ${minLength} characters`];
  if (length > maxLength) return [`must have at most ${maxLength} characters`];
  if (format === "date-time" && !/^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/.test(value)) {
    return ["must be a time like 2026-03-01T18:00:00Z"];
  }
  if (pattern !== undefined && !new RegExp(pattern, "u").test(value)) return [`must look like ${pattern}`];
  return [];
}

function ofList(root: Schema, schema: Schema, value: unknown[], path: string): Fault[] {
  const { minItems = 0, maxItems = Infinity, items = {} } = schema;
  if (value.length < minItems) return [{ path, message: `needs at least ${minItems}` }];
  if (value.length > maxItems) return [{ path, message: `takes at most ${maxItems}` }];
  return value.flatMap((each, index) => faults(root, items, each, joined(path, index)));
}

function ofObject(root: Schema, schema: Schema, value: Record<string, unknown>, path: string): Fault[] {
  const { properties = {}, patternProperties = {}, additionalProperties, required = [] } = schema;
  const closed = additionalProperties === false || (schema.patternProperties && additionalProperties === undefined);
  const missing = required.filter((name) => value[name] === undefined);
  const found = missing.map((name) => ({ path: joined(path, name), message: "is needed" }));
  if (Object.keys(value).length > (schema.maxProperties ?? Infinity)) {
    found.push({ path, message: `takes at most ${schema.maxProperties}` });
  }
  for (const [name, each] of Object.entries(value)) {
    if (each === undefined) continue;
    const [pattern, patterned] =
      Object.entries(patternProperties).find(([key]) => new RegExp(key, "u").test(name)) ?? [];
    const known = Object.hasOwn(properties, name) ? properties[name] : patterned;
    if (known !== undefined) found.push(...faults(root, known, each, joined(path, name)));
    else if (closed) {
      const names = Object.keys(patternProperties).join(" or ");
      const message = pattern === undefined && names ? `must be named like ${names}` : "is not known here";
      found.push({ path: joined(path, name), message });
    }
  }
  return found;
}
