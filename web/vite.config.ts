// Builds the page into `web/dist`, which any web server can serve from any path; a build that is too heavy fails.
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const MAX_GZIP_BYTES = 120_000;

function budget(): Plugin {
  return {
    name: "budget",
    apply: "build",
    generateBundle(_, bundle) {
      const scripts = Object.values(bundle).filter((file) => file.type === "chunk");
      const bytes = scripts.reduce((sum, { code }) => sum + gzipSync(code).length, 0);
      if (bytes > MAX_GZIP_BYTES) {
        this.error(`The page's scripts are ${bytes} bytes when compressed; at most ${MAX_GZIP_BYTES} were agreed`);
      }
      this.info(`scripts: ${bytes} of ${MAX_GZIP_BYTES} bytes, compressed`);
    },
  };
}

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  publicDir: "public",
  esbuild: { jsx: "automatic" },
  build: { outDir: "dist", emptyOutDir: true, target: "es2022", modulePreload: { polyfill: false } },
  plugins: [budget()],
});
