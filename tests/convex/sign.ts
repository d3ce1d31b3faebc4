// Signs what stands on standard input, one JSON intent a line, as the product does; for test_signing.py.
import { createInterface } from "node:readline";
import { signCommand } from "../../convex/signing";

for await (const line of createInterface({ input: process.stdin })) {
  const { operation, idempotency_key, body } = JSON.parse(line) as {
    operation: string;
    idempotency_key: string | null;
    body: object;
  };
  console.log(await signCommand(operation, idempotency_key, body));
}
