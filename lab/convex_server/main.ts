// Serves the functions of `convex/` over Convex's HTTP API on 127.0.0.1, from memory, for the lab and the tests.
// `convex/README.md` says what this imitates and what it does not prove.
import { Authenticator } from "./auth";
import { configure } from "./config";
import { runCrons } from "./crons";
import { Deployment } from "./functions";
import { listen } from "./http";

const config = configure(process.env);
const authenticator = await Authenticator.create(config);
const deployment = await Deployment.load();
const url = await listen(config.port, authenticator, deployment);
await runCrons(deployment);
console.log(`ready ${url}`);
