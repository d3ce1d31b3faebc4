// A hook of Node's module loader: gives convex-test the indexes of `indexes.ts`. Each place that is changed must be
// there once; if not, the version that is installed is another than this was written for, and the server does not start.
const CHANGES = [
  [
    "class DatabaseFake {",
    `import { Indexes } from "${new URL("indexes.ts", import.meta.url)}";\nclass DatabaseFake {`,
  ],
  ["    _documents = {};\n", "    _documents = {};\n    _indexes = new Indexes();\n"],
  [
    "    commit(commitTs = null) {\n",
    `    commit(commitTs = null) {
        const written = this._writes.length === 1 ? Object.keys(this._writes[0]) : [];
        const before = written.map((id) => this._documents[id]);
        this._commit(commitTs);
        written.forEach((id, place) => this._indexes.commit(tableNameFromId(id), before[place], this._documents[id]));
    }
    _commit(commitTs) {
`,
  ],
  ["_iterateDocs(tableName, callback) {", "_iterateDocs(tableName, callback, fields, range) {"],
  ["new Set(Object.keys(this._documents).filter(isInTable))", "new Set(this._indexes.ids(tableName, fields, range))"],
  [
    `evaluateRangeFilter(doc, filter))) {
                        results.push(doc);
                    }
                });`,
    `evaluateRangeFilter(doc, filter))) {
                        results.push(doc);
                    }
                }, fields, source.range);`,
  ],
];

export async function load(url, context, next) {
  const loaded = await next(url, context);
  if (!url.endsWith("/node_modules/convex-test/dist/index.js")) return loaded;
  let source = loaded.source.toString();
  for (const [place, changed] of CHANGES) {
    if (source.split(place).length !== 2)
      throw new Error(`convex-test is another than lab/convex_server expects: ${place}`);
    source = source.replace(place, () => changed);
  }
  return { ...loaded, source };
}
