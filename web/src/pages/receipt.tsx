import { useState } from "react";
import { keysOf, Problem, receiptOf, useAdapter } from "../adapter";
import { Panel } from "../parts/common";
import { TERMINAL, type Job } from "../product";
import { save } from "../save";

/** The node's signed word on the job, for whoever does not want to take ours. */
export function ReceiptPanel({ job: { node_id, job_id, state, seq } }: { job: Job }) {
  const adapter = useAdapter();
  const [words, setWords] = useState<string>();
  const [file, setFile] = useState<string>();
  const [busy, setBusy] = useState<"receipt" | "keys">();
  const keysFile = `${node_id}.keys.json`;

  async function download(what: "receipt" | "keys", work: () => Promise<void>) {
    setBusy(what);
    setWords(undefined);
    try {
      await work();
    } catch (error) {
      setWords(error instanceof Problem ? error.message : "The answer did not arrive");
    } finally {
      setBusy(undefined);
    }
  }

  async function fetchReceipt() {
    const receipt = await receiptOf(adapter, node_id, job_id);
    if (receipt === null)
      return setWords("There is no receipt of this job: the node no longer has it, or the adapter knows no receipts.");
    const name = `${job_id}.receipt.json`;
    save(receipt, name, "application/json");
    setFile(name);
  }

  async function fetchKeys() {
    save(await keysOf(adapter, node_id), keysFile, "application/json");
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
          <p className="actions">
            <button type="button" disabled={busy !== undefined} onClick={() => void download("receipt", fetchReceipt)}>
              {busy === "receipt" ? "Asking the node…" : "Download receipt"}
            </button>
            <button type="button" disabled={busy !== undefined} onClick={() => void download("keys", fetchKeys)}>
              Download the node's keys
            </button>
          </p>
          <div role="status">
            {words && <p>{words}</p>}
            {file && (
              <p className="command">
                <span>
                  With the node's keys anybody can check it:
                  <br />
                  <code>
                    verdi data byoc jobs verify-receipt {file} --keys {keysFile} --job {job_id}
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
