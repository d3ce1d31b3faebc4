// A hook of Node's module loader: gives convex-test the indexes of `indexes.ts`. Each place that is changed must be
// there once; if not, the version that is installed is another than this was written for, and the server does not start.
const CHANGES = [
  [
    "class DatabaseFake {",
    `import { Indexes, placeAfter } from "${new URL("indexes.ts", import.meta.url)}";\nclass DatabaseFake {`,
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
    "                this._iterateDocs(tableName, (doc) => {\n                    if (source.range.every(",
    `                if (!this._writes.some((level) => Object.keys(level).some((id) => tableNameFromId(id) === tableName))) {
                    ordered = this._indexes.ordered(tableName, fields, source.range, evaluateRangeFilter);
                    break;
                }
                this._iterateDocs(tableName, (doc) => {
                    if (source.range.every(`,
  ],
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
  [
    "        let fieldPathsToSortBy;\n        let order;\n",
    "        let fieldPathsToSortBy;\n        let order;\n        let ordered;\n",
  ],
  ["        results.sort((a, b) => {", "        if (ordered === undefined) results.sort((a, b) => {"],
  [
    "            sortedDocs: results,",
    "            sortedDocs: ordered === undefined ? results : order === 'asc' ? ordered : ordered.reverse(),",
  ],
  [
    "        for (let i = 0; i < sortedDocs.length; i++) {\n            const doc = sortedDocs[i];\n            const isLastDoc",
    `        const passed = (doc) => this._docIsAfterCursor(doc, cursorKeys, cursorFields, order) <= 0;
        const first = cursorKeys && fieldPathsToSortBy.length > 0 ? placeAfter(sortedDocs, passed) : 0;
        for (let i = first; i < sortedDocs.length; i++) {
            const doc = sortedDocs[i];
            const isLastDoc`,
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
