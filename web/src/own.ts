/** What `record` itself holds under a name that came from elsewhere; nothing for "constructor" and the like. */
export function own<Value>(record: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}
