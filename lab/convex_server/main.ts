// Serves the functions of `convex/` over Convex's HTTP API on 127.0.0.1, from memory, for the lab and the tests.
// `convex/README.md` says what this imitates and what it does not prove.
import { register } from "node:module";
import { Authenticator } from "./auth";
import { configure } from "./config";

register("./indexed.js", import.meta.url); // before anything that loads convex-test
const [{ runCrons }, { Deployment }, { listen }] = await Promise.all([
  import("./crons"),
  import("./functions"),
  import("./http"),
]);

const config = configure(process.env);
const authenticator = await Authenticator.create(config);
const deployment = await Deployment.load();
const url = await listen(config.port, authenticator, deployment);
await runCrons(deployment);
console.log(`ready ${url}`);
