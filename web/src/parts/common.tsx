import { Component, useEffect, useId, useLayoutEffect, useRef, useState, type ReactNode } from "react";
import { told } from "../product";

/** What takes the place of a list that is empty. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p className="loading" role="status">
      Loading {what}…
    </p>
  );
}

/** A failure in words; `retry` where trying again can help. */
export function Failure({ error, title, retry }: { error: unknown; title?: string; retry?: () => void }) {
  const { code, message } = told(error);
  return (
    <div className="failure" role="alert">
      <p>
        <strong>{title ?? (code === "not_found" ? "Nothing here" : "This did not work")}</strong> {message}
      </p>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Keeps a failure of one part from taking the page with it. Another `key` tries anew. */
export class Boundary extends Component<{ children: ReactNode; title?: string }, { error?: unknown }> {
  override state: { error?: unknown } = {};
  static getDerivedStateFromError(error: unknown) {
    return { error };
  }
  override render() {
    const { error } = this.state;
    if (error === undefined) return this.props.children;
    return <Failure error={error} title={this.props.title} retry={() => this.setState({ error: undefined })} />;
  }
}

export function Copy({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = window.setTimeout(() => setCopied(false), 2000);
    return () => window.clearTimeout(timer);
  }, [copied]);
  return (
    <button
      type="button"
      className="copy"
      aria-label={`Copy ${what}`}
      onClick={() =>
        navigator.clipboard.writeText(text).then(
          () => setCopied(true),
          () => setCopied(false),
        )
      }
    >
      <span aria-live="polite">{copied ? "Copied" : "Copy"}</span>
    </button>
  );
}

/** A text that is a name of something, with a button that copies it. */
export function Code({ children, what }: { children: string; what?: string }) {
  return (
    <span className="code">
      <code title={children}>{children}</code>
      {what && <Copy text={children} what={what} />}
    </span>
  );
}

/** A dialog that is open as long as it is there; Escape and a click beside it close it. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children: ReactNode }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useLayoutEffect(() => {
    const shown = dialog.current!;
    shown.showModal();
    return () => shown.close(); // only so the focus goes back to where it came from
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={heading}
      onClose={({ currentTarget }) => currentTarget.open || close()}
      onClick={(event) => event.target === dialog.current && dialog.current.close()}
    >
      <div className="dialog-body">
        <h2 id={heading}>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

/** Asks before `action`; stays open with the reason if that fails. */
export function Confirm({
  title,
  children,
  verb,
  action,
  close,
}: {
  title: string;
  children: ReactNode;
  verb: string;
  action: () => Promise<unknown>;
  close: () => void;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  return (
    <Dialog title={title} close={close}>
      {children}
      {error !== undefined && <Failure error={error} />}
      <div className="actions">
        <button type="button" onClick={close}>
          Keep it as it is
        </button>
        <button
          type="button"
          className="danger"
          disabled={busy}
          onClick={() => {
            setBusy(true);
            action().then(close, (reason: unknown) => {
              setError(reason);
              setBusy(false);
            });
          }}
        >
          {verb}
        </button>
      </div>
    </Dialog>
  );
}

/** A titled part of a page. */
export function Panel({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  const heading = useId();
  return (
    <section className="panel" aria-labelledby={heading}>
      <header>
        <h2 id={heading}>{title}</h2>
        {aside && <div className="panel-aside">{aside}</div>}
      </header>
      <Boundary>{children}</Boundary>
    </section>
  );
}

/** Names and values; what has none is left out. */
export function Facts({ of }: { of: [string, ReactNode][] }) {
  return (
    <dl className="facts">
      {of
        .filter(([, value]) => Boolean(value))
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** How much of a whole, as a bar with words beside it. */
export function Meter({ value, max, label }: { value: number; max: number; label: string }) {
  const share = max > 0 ? Math.min(100, (100 * value) / max) : 0;
  return (
    <span className="meter">
      <span className="meter-bar" aria-hidden="true">
        <span style={{ width: `${share}%` }} />
      </span>
      <span>{label}</span>
    </span>
  );
}
