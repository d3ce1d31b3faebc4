import { useState } from "react";
import { Problem, receiptOf, useAdapter } from "../adapter";
import { Panel } from "../parts/common";
import { TERMINAL, type Job } from "../product";
import { save } from "../save";

/** The node's signed word on the job, for whoever does not want to take ours. */
export function ReceiptPanel({ job: { node_id, job_id, state, seq } }: { job: Job }) {
  const adapter = useAdapter();
  const [words, setWords] = useState<string>();
  const [file, setFile] = useState<string>();
  const [busy, setBusy] = useState(false);

  async function fetchIt() {
    setBusy(true);
    setWords(undefined);
    try {
      const receipt = await receiptOf(adapter, node_id, job_id);
      if (receipt === null)
        return setWords(
          "There is no receipt of this job: the node no longer has it, or the adapter knows no receipts.",
        );
      const name = `${job_id}.receipt.json`;
      save(receipt, name, "application/json");
      setFile(name);
    } catch (error) {
      setWords(error instanceof Problem ? error.message : "The receipt did not arrive");
    } finally {
      setBusy(false);
    }
  }

  return (
    <Panel title="Provenance receipt">
      {!TERMINAL.has(state) ? (
        <p className="hint">The node signs one once the job has ended.</p>
      ) : seq === 0 ? (
        <p className="hint">No node took this job, so none signs for it.</p>
      ) : (
        <>
          <p className="hint">
            Signed by the node: this job, what ran in it, where, what Slurm said of it, and the hash of every output.
          </p>
          <button type="button" disabled={busy} onClick={() => void fetchIt()}>
            {busy ? "Asking the node…" : "Download receipt"}
          </button>
          <div role="status">
            {words && <p>{words}</p>}
            {file && (
              <p className="command">
                <span>
                  Anybody with the node's public key can check it:
                  <br />
                  <code>
                    verdi data byoc jobs verify-receipt {file} --key node-key.json --job {job_id}
                  </code>
                </span>
              </p>
            )}
          </div>
        </>
      )}
    </Panel>
  );
}
