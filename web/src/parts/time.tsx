import { useSyncExternalStore } from "react";
import { exact, relative, span } from "../format";

// One clock for the whole page. It ticks as long as somebody looks.
const listeners = new Set<() => void>();
let now = Date.now();
let timer: number | undefined;

function subscribe(changed: () => void): () => void {
  listeners.add(changed);
  timer ??= window.setInterval(() => {
    now = Date.now();
    for (const each of listeners) each();
  }, 1000);
  return () => {
    listeners.delete(changed);
    if (listeners.size === 0) {
      window.clearInterval(timer);
      timer = undefined;
    }
  };
}

/** The time, in milliseconds, that goes on by the second. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}

/** How long ago; the title says exactly when. */
export function Ago({ time }: { time: string | undefined }) {
  const current = useNow();
  if (time === undefined) return <span className="quiet">–</span>;
  const at = Date.parse(time);
  if (Number.isNaN(at)) return <span>{time}</span>;
  return (
    <time dateTime={time} title={exact(time)}>
      {relative(at, Math.max(current, Date.now()))}
    </time>
  );
}

/** How long something has gone on, or went on. */
export function Span({ from, until }: { from: string; until?: string }) {
  const current = useNow();
  const end = until === undefined ? Math.max(current, Date.now()) : Date.parse(until);
  const seconds = Math.max(0, (end - Date.parse(from)) / 1000);
  const title = until === undefined ? `since ${exact(from)}` : `${exact(from)} – ${exact(until)}`;
  return <span title={title}>{span(until === undefined ? Math.floor(seconds) : seconds)}</span>;
}
