// Indexes for convex-test, which reads every document of the database for every read of a function: with thousands of
// jobs that takes seconds. What is read, and in which order, stays its business; here is only where to look.
import { compareValues, convexToJson, type JSONValue, type Value } from "convex/values";

type Document = { _id: string } & Record<string, Value>;
type Filter = { type: string; fieldPath: string; value: JSONValue };

/** The committed documents of one table, by the first `depth` fields of an index and in the order of all its fields. */
class Index {
  private readonly buckets = new Map<string, Document[]>();

  constructor(
    private readonly fields: string[],
    private readonly depth: number,
    documents: Iterable<Document>,
  ) {
    for (const document of documents) {
      const key = this.key(document);
      const bucket = this.buckets.get(key);
      if (bucket === undefined) this.buckets.set(key, [document]);
      else bucket.push(document);
    }
    for (const bucket of this.buckets.values()) bucket.sort((one, other) => this.compare(one, other));
  }

  bucket(values: JSONValue[]): readonly Document[] {
    return this.buckets.get(JSON.stringify(values)) ?? [];
  }

  add(document: Document): void {
    const key = this.key(document);
    const bucket = this.buckets.get(key) ?? [];
    this.buckets.set(key, bucket);
    bucket.splice(this.place(bucket, document), 0, document);
  }

  remove(document: Document): void {
    const key = this.key(document);
    const bucket = this.buckets.get(key)!;
    bucket.splice(this.place(bucket, document), 1);
    if (bucket.length === 0) this.buckets.delete(key);
  }

  private key(document: Document): string {
    return JSON.stringify(this.fields.slice(0, this.depth).map((field) => encoded(valueOf(document, field))));
  }

  private place(bucket: Document[], document: Document): number {
    return placeAfter(bucket, (other) => this.compare(other, document) < 0);
  }

  private compare(one: Document, other: Document): number {
    for (const field of this.fields) {
      const order = compareValues(valueOf(one, field), valueOf(other, field));
      if (order !== 0) return order;
    }
    return 0;
  }
}

/** All indexes of a database, made when they are first read. */
export class Indexes {
  private readonly tables = new Map<string, Map<string, Document>>();
  private readonly indexes = new Map<string, Map<string, Index>>();

  /** A document has been committed: `before` or `after` is undefined where there was none, or is none any more. */
  commit(table: string, before: Document | undefined, after: Document | undefined): void {
    const documents = this.tables.get(table) ?? new Map<string, Document>();
    this.tables.set(table, documents);
    if (after !== undefined) documents.set(after._id, after);
    else if (before !== undefined) documents.delete(before._id);
    for (const index of this.indexes.get(table)?.values() ?? []) {
      if (before !== undefined) index.remove(before);
      if (after !== undefined) index.add(after);
    }
  }

  /** The committed documents in which to look for those of a range, in the order of the fields, if there are any. */
  ids(table: string, fields?: string[], range: Filter[] = []): Iterable<string> {
    if (fields === undefined) return this.tables.get(table)?.keys() ?? [];
    return this.bucket(table, fields, range).documents.map(({ _id }) => _id);
  }

  /** The committed documents of a range, in the order of the fields. */
  ordered(table: string, fields: string[], range: Filter[], holds: (one: Document, of: Filter) => boolean): Document[] {
    const { documents, depth } = this.bucket(table, fields, range);
    const rest = range.slice(depth);
    return documents.filter((document) => rest.every((filter) => holds(document, filter)));
  }

  private bucket(table: string, fields: string[], range: Filter[]): { documents: readonly Document[]; depth: number } {
    const values: JSONValue[] = [];
    for (const { type, value } of range) {
      // An object may be written in several ways; the rest of the range finds it.
      if (type !== "Eq" || (typeof value === "object" && value !== null && !("$undefined" in value))) break;
      values.push(value);
    }
    const indexes = this.indexes.get(table) ?? new Map<string, Index>();
    this.indexes.set(table, indexes);
    const name = JSON.stringify([fields, values.length]);
    const index = indexes.get(name) ?? new Index(fields, values.length, this.tables.get(table)?.values() ?? []);
    indexes.set(name, index);
    return { documents: index.bucket(values), depth: values.length };
  }
}

/** How many of the sorted documents come before all for which `isBefore` does not hold. */
export function placeAfter<Of>(documents: readonly Of[], isBefore: (document: Of) => boolean): number {
  let [low, high] = [0, documents.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore(documents[middle]!)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function valueOf(document: Document, path: string): Value | undefined {
  if (!path.includes(".")) return document[path];
  return path.split(".").reduce<Value | undefined>((value, part) => {
    return typeof value === "object" && value !== null ? (value as Record<string, Value>)[part] : undefined;
  }, document);
}

function encoded(value: Value | undefined): JSONValue {
  return value === undefined ? { $undefined: null } : convexToJson(value);
}
