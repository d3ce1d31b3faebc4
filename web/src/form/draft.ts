// What a form holds while somebody fills it in: text as typed, rows as laid out; and the way to a value and back.
import { faults, isLong, joined, kindOf, plain, variantOf, variantsOf, type Fault, type Schema } from "./schema";

export type Draft = string | boolean | undefined | Draft[] | { [name: string]: Draft };
/** One row of a map. */
export type Pair = { name: string; value: string };
/** A union: which variant, and its fields. */
export type Chosen = { variant: string; fields: { [name: string]: Draft } };

/** The draft that shows `value`; where that is undefined, an empty one. */
export function draftOf(root: Schema, given: Schema, value: unknown): Draft {
  const schema = plain(root, given);
  switch (kindOf(root, schema)) {
    case "constant":
      return undefined;
    case "boolean":
      return typeof value === "boolean" ? value : schema.default === true;
    case "choices":
      return Array.isArray(value) ? value.map(String) : [];
    case "list":
      return Array.isArray(value) ? value.map((each) => draftOf(root, schema.items ?? {}, each)) : [];
    case "map":
      return Object.entries((value ?? {}) as object).map(([name, each]) => ({ name, value: String(each) }));
    case "json":
      return value === undefined ? "" : JSON.stringify(value, null, 2);
    case "object": {
      if (schema.nullable && (value === undefined || value === null)) return undefined;
      return fieldsOf(root, schema, value);
    }
    case "union": {
      const { name, schema: variant } = variantsOf(root, schema)[variantOf(root, schema, value)]!;
      return { variant: name, fields: fieldsOf(root, variant, value) };
    }
    default:
      return value === undefined || value === null ? "" : String(value);
  }
}

/** The drafts of an object's properties. */
export function fieldsOf(root: Schema, schema: Schema, value: unknown): { [name: string]: Draft } {
  const held = (value ?? {}) as Record<string, unknown>;
  const named = Object.entries(schema.properties ?? {});
  return Object.fromEntries(named.map(([name, each]) => [name, draftOf(root, each, held[name])]));
}

/** The value of a draft, and what is wrong with it: whatever stands empty and is not needed is left out. */
export function valueOf(root: Schema, schema: Schema, draft: Draft): { value: unknown; faults: Fault[] } {
  const unreadable: Fault[] = [];
  const value = read(root, schema, draft, "", true, unreadable);
  const hidden = new Set(unreadable.map(({ path }) => path));
  return { value, faults: [...unreadable, ...faults(root, schema, value).filter(({ path }) => !hidden.has(path))] };
}

function read(root: Schema, given: Schema, draft: Draft, path: string, needed: boolean, wrong: Fault[]): unknown {
  const schema = plain(root, given);
  switch (kindOf(root, schema)) {
    case "constant":
      return schema.const;
    case "boolean":
      return draft === (schema.default ?? false) && !needed ? undefined : draft === true;
    case "number":
      return draft === "" ? undefined : numeral(draft as string);
    case "choices":
      return emptied(draft as string[], needed);
    case "list": {
      const rows = draft as Draft[];
      return emptied(
        rows.map((row, index) => read(root, schema.items ?? {}, row, joined(path, index), true, wrong) ?? ""),
        needed,
      );
    }
    case "map":
      return mapped(draft as unknown as Pair[], path, wrong);
    case "json":
      return parsed(draft as string, path, wrong);
    case "object": {
      if (draft === undefined) return undefined;
      const value = readFields(root, schema, draft as { [name: string]: Draft }, path, wrong);
      return Object.keys(value).length === 0 && !needed && !schema.nullable ? undefined : value;
    }
    case "union": {
      const { variant, fields } = draft as unknown as Chosen;
      const chosen = variantsOf(root, schema).find(({ name }) => name === variant)!;
      return readFields(root, chosen.schema, fields, path, wrong);
    }
    default:
      // An empty line says nothing; an empty file is one.
      return draft === "" && !(needed && isLong(schema)) ? undefined : draft;
  }
}

function readFields(
  root: Schema,
  schema: Schema,
  fields: { [name: string]: Draft },
  path: string,
  wrong: Fault[],
): Record<string, unknown> {
  const { properties = {}, required = [] } = schema;
  const found = Object.entries(properties).map(([name, each]) => [
    name,
    read(root, each, fields[name], joined(path, name), required.includes(name), wrong),
  ]);
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}

// What is no number stays as it was typed, so that the schema's own words say what it should be.
function numeral(text: string): unknown {
  return /^-?\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : text;
}

function emptied<Each>(rows: Each[], needed: boolean): Each[] | undefined {
  return rows.length === 0 && !needed ? undefined : rows;
}

function mapped(rows: Pair[], path: string, wrong: Fault[]): Record<string, string> | undefined {
  const value: Record<string, string> = {};
  for (const row of rows) {
    if (row.name === "" && row.value === "") continue;
    if (Object.hasOwn(value, row.name)) wrong.push({ path: joined(path, row.name), message: "is given twice" });
    value[row.name] = row.value;
  }
  return Object.keys(value).length === 0 ? undefined : value;
}

function parsed(text: string, path: string, wrong: Fault[]): unknown {
  if (text.trim() === "") return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    wrong.push({ path, message: "must be JSON" });
    return undefined;
  }
}
