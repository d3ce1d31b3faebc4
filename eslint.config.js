// What tsc does not see: which doors the product's functions and the page go through.
import parser from "@typescript-eslint/parser";

const SERVER = "(^|/)_generated/server(\\.js)?$|^convex/server$";
const RAW = "^(query|mutation|action|httpAction)(Generic)?$";

export default [
  { ignores: ["convex/_generated/", "web/dist/"] },
  { files: ["convex/**/*.ts", "web/**/*.{ts,tsx}"], languageOptions: { parser } },
  {
    files: ["convex/**/*.ts"],
    ignores: ["convex/functions.ts"],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            {
              regex: SERVER,
              importNamePattern: RAW,
              message: "Public functions are made by the wrappers of functions.ts, which know who calls.",
            },
          ],
        },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "ImportExpression", message: "Import by name, so that it is seen what is imported." },
      ],
    },
  },
  {
    files: ["web/src/**/*.{ts,tsx}"],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            {
              regex: "/convex/(?!_generated/api$)",
              allowTypeImports: true,
              message: "The page knows the functions by their names alone: convex/_generated/api.",
            },
          ],
        },
      ],
    },
  },
];
