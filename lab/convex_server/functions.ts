// The functions of `convex/`, run by convex-test on a database in memory, one transaction at a time.
import { randomUUID } from "node:crypto";
import { readdirSync } from "node:fs";
import { ConvexError, convexToJson, jsonToConvex, type JSONValue, type Value } from "convex/values";
import { makeFunctionReference } from "convex/server";
import { convexTest, type TestConvex } from "convex-test";
import schema from "../../convex/schema";
import type { Caller } from "./auth";
import { loadComponents } from "./components";
import { newestCommit, watchWrites, type Trace } from "./tracking";

export type FunctionType = "query" | "mutation" | "action";
type Failure = { status: "error"; errorMessage: string; errorData?: JSONValue };
/** The body of a 200: what the function returned, or that it failed. */
export type Answer = { status: "success"; value: JSONValue } | Failure;

/** Runs a query in a snapshot, noting in `trace` what it reads. */
export type RunQuery = (path: string, args: JSONValue, trace: Trace) => Promise<Answer>;

type Exported = { isPublic?: boolean; isQuery?: boolean; isMutation?: boolean; isAction?: boolean };

/** The directory of the functions. */
export const FUNCTIONS = new URL("../../convex/", import.meta.url);
const CONFIGURATION = new Set(["schema.ts", "auth.config.ts", "convex.config.ts", "crons.ts"]);

export class Deployment {
  private constructor(
    private readonly database: TestConvex<typeof schema>,
    private readonly exported: ReadonlyMap<string, Exported>,
  ) {}

  /** Loads every module of `convex/`. */
  static async load(): Promise<Deployment> {
    const files = readdirSync(FUNCTIONS).filter((file) => file.endsWith(".ts") && !CONFIGURATION.has(file));
    const paths = [...files, "_generated/api.js", "_generated/server.js"];
    const modules: Record<string, () => Promise<object>> = {};
    const exported = new Map<string, Exported>();
    for (const path of paths) {
      const module = (await import(new URL(path, FUNCTIONS).href)) as Record<string, unknown>;
      modules[`convex/${path}`] = () => Promise.resolve(module);
      for (const [name, value] of Object.entries(module)) {
        if (path.startsWith("_generated/") || typeof value !== "function") continue;
        if (typeOf(value as Exported) !== undefined) {
          exported.set(`${path.replace(/\.ts$/, "")}:${name}`, value as Exported);
        }
      }
    }
    const database = convexTest({ schema, modules });
    for (const component of await loadComponents(FUNCTIONS)) {
      database.registerComponent(component.path, component.schema, component.modules);
    }
    await database.run(async () => {}); // the first commit: no time before it is ever told
    return new Deployment(database, exported);
  }

  /** Calls `listener` with the table of each write; at that time its transaction is under way, and may still fail. */
  onWrite(listener: (table: string) => void): void {
    watchWrites(listener);
  }

  /** Has `work` run queries as the caller, all as of one moment: that of the commit whose time it is given. */
  async snapshot(caller: Caller, work: (time: bigint, run: RunQuery) => Promise<void>): Promise<void> {
    await this.as(caller).query(async (ctx) => {
      const query = ctx.runQuery as (reference: object, args: Value) => Promise<Value>;
      await work(newestCommit(), async (path, args, trace) => {
        const target = this.target(caller, "query", path);
        if ("status" in target) return target;
        return answered(() => trace.run(() => query(makeFunctionReference(target.name), jsonToConvex(args))));
      });
      return null;
    });
  }

  /** Runs the function at `path` ("module:function"); `type` undefined takes it as whatever it is. */
  async run(caller: Caller, type: FunctionType | undefined, path: string, args: JSONValue): Promise<Answer> {
    const target = this.target(caller, type, path);
    if ("status" in target) return target;
    const run = this.as(caller)[target.type] as (reference: object, args: Value) => Promise<Value | undefined>;
    return answered(() => run(makeFunctionReference(target.name), jsonToConvex(args)));
  }

  private as({ identity }: Caller) {
    return identity === undefined ? this.database : this.database.withIdentity(identity);
  }

  // What `path` names, if the caller may run it.
  private target(
    caller: Caller,
    type: FunctionType | undefined,
    path: string,
  ): { name: string; type: FunctionType } | Failure {
    const canonical = path.replace(/\.js(?=:|$)/, "");
    const name = canonical.includes(":") ? canonical : `${canonical}:default`;
    const exported = this.exported.get(name);
    if (exported === undefined || !(exported.isPublic || caller.admin)) {
      return failure(`Could not find ${caller.admin ? "" : "public "}function for '${canonical}'.`);
    }
    const actual = typeOf(exported)!;
    if (type !== undefined && type !== actual) {
      return failure(`Trying to execute ${canonical} as ${type}, but it is defined as ${actual}.`);
    }
    return { name, type: actual };
  }
}

async function answered(call: () => Promise<Value | undefined>): Promise<Answer> {
  try {
    const value = await call();
    return { status: "success", value: value === undefined ? null : convexToJson(value) };
  } catch (error) {
    if (error instanceof ConvexError) {
      return { ...failure(error.message), errorData: convexToJson(error.data as Value) };
    }
    return failure(error instanceof Error ? error.message : String(error));
  }
}

function typeOf(exported: Exported): FunctionType | undefined {
  if (exported.isQuery) return "query";
  if (exported.isMutation) return "mutation";
  return exported.isAction ? "action" : undefined;
}

function failure(message: string): Failure {
  return {
    status: "error",
    errorMessage: `[Request ID: ${randomUUID().slice(0, 8)}] Server Error\n${message}`,
  };
}
