import { useState } from "react";
import { signIn, type SignedIn } from "../auth";
import type { Picked } from "../config";

export function SignIn({
  offered,
  notice,
  signedIn,
}: {
  offered: Picked[];
  notice?: string;
  signedIn: (user: SignedIn) => void;
}) {
  const [problem, setProblem] = useState(notice);
  function enter(token: string) {
    try {
      signedIn(signIn(token));
    } catch (error) {
      setProblem((error as Error).message);
    }
  }
  return (
    <main className="alone">
      <h1>Sign in</h1>
      {problem && <p role="alert">{problem}</p>}
      {offered.length > 0 && (
        <>
          <p>This is a lab. Go in as</p>
          <ul className="choices">
            {offered.map(({ tenant_id, user_id, token }) => (
              <li key={user_id}>
                <button type="button" onClick={() => enter(token)}>
                  <strong>{user_id}</strong> <span>of {tenant_id}</span>
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          enter(String(new FormData(event.currentTarget).get("token")));
        }}
      >
        <label htmlFor="token">{offered.length > 0 ? "Or with a token" : "Your token"}</label>
        <input id="token" name="token" type="password" autoComplete="off" spellCheck={false} required />
        <p className="hint">It stays in this tab, and goes to the product and to the adapter alone.</p>
        <button type="submit" className="primary">
          Sign in
        </button>
      </form>
    </main>
  );
}
