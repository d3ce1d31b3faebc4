import { useAction } from "convex/react";
import { useState, type FormEvent } from "react";
import { NAME } from "../form/command";
import { faults } from "../form/schema";
import { Code, Copy, Dialog, Failure } from "../parts/common";
import { Ago } from "../parts/time";
import { api } from "../product";

type Token = { node_id: string; enrolment_token: string; expires_at: string };

/** Makes a node and shows its token, this once, with the command that takes it. */
export function Enrol({
  tenant_id,
  adapter_url,
  made,
  close,
}: {
  tenant_id: string;
  adapter_url: string;
  made?: Token;
  close: () => void;
}) {
  const create = useAction(api.nodes.create);
  const [token, setToken] = useState(made);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [fault, setFault] = useState<string>();

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const node_id = String(new FormData(event.currentTarget).get("node_id")).trim();
    const [wrong] = faults(NAME, NAME, node_id);
    setFault(wrong && "node_id must be 1 to 64 letters, digits, hyphens or underscores, a letter or digit first");
    if (wrong) return;
    setBusy(true);
    setError(undefined);
    create({ tenant_id, node_id })
      .then((answer) => setToken({ node_id, ...answer }), setError)
      .finally(() => setBusy(false));
  }

  if (token !== undefined) {
    const command = [
      `verdi data byoc node enroll --url ${adapter_url}`,
      "--policy policy.toml --image-store images",
    ].join(" \\\n  ");
    return (
      <Dialog title={`Enrol ${token.node_id}`} close={close}>
        <p>
          Run this on the machine with AiiDA and Slurm. It asks for the token, which is good once, until it expires{" "}
          <Ago time={token.expires_at} />.
        </p>
        <p className="command">
          <code>{command}</code>
          <Copy text={command} what="the command" />
        </p>
        <p>The token, which is shown this once:</p>
        <p className="command">
          <Code what="the token">{token.enrolment_token}</Code>
        </p>
        <p className="hint">
          Policy and image store are of your machine: give their places. A node is enrolled once it shows as online.
        </p>
        <div className="actions">
          <button type="button" className="primary" onClick={close}>
            Done
          </button>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title="Enrol a node" close={close}>
      <form onSubmit={submit} noValidate>
        <label htmlFor="node_id">Name of the node</label>
        <input
          id="node_id"
          name="node_id"
          placeholder="cluster-1"
          autoComplete="off"
          aria-invalid={fault !== undefined}
          aria-describedby="node_id-words"
        />
        <p id="node_id-words" className={fault ? "fault" : "hint"}>
          {fault ?? "Names are everybody's: one that is taken is refused."}
        </p>
        {error !== undefined && <Failure error={error} />}
        <div className="actions">
          <button type="button" onClick={close}>
            Never mind
          </button>
          <button type="submit" className="primary" disabled={busy}>
            Make a token
          </button>
        </div>
      </form>
    </Dialog>
  );
}
