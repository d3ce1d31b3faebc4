import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/convex/**/*.test.ts", "tests/page/**/*.test.ts"],
    // The runtime of Convex knows no Node built-ins; neither does this one.
    environment: "edge-runtime",
    testTimeout: 30_000, // for machines that are busy; most take milliseconds
    server: { deps: { inline: ["convex-test"] } },
  },
});
