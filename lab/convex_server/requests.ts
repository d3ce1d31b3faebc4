// Mutations that clients repeat after a lost connection: they run once.
import type { Caller } from "./auth";
import type { Answer } from "./functions";

const REMEMBERED = 1000;

export class Requests {
  private readonly answers = new Map<string, Promise<Answer>>();

  /** Runs a mutation, or returns what it answered when the same session and caller asked before. */
  once(
    sessionId: string | undefined,
    requestId: number,
    { identity }: Caller,
    run: () => Promise<Answer>,
  ): Promise<Answer> {
    if (sessionId === undefined) return run();
    const key = JSON.stringify([sessionId, requestId, identity?.tokenIdentifier]);
    const before = this.answers.get(key);
    if (before !== undefined) return before;
    const answer = run();
    this.answers.set(key, answer);
    for (const oldest of this.answers.keys()) {
      if (this.answers.size <= REMEMBERED) break;
      this.answers.delete(oldest);
    }
    // What failed has changed nothing.
    void answer.then(
      ({ status }) => status === "error" && this.answers.delete(key),
      () => this.answers.delete(key),
    );
    return answer;
  }
}
