// Which rows of a long list are worth having in the document: those on the screen, and some around them.
import { useLayoutEffect, useState, type RefObject } from "react";

const AROUND = 12;

export type Shown = { first: number; last: number };

/** The rows from `first` to before `last` that a box of `height` shows when scrolled to `top`, all in pixels. */
export function shownRows(top: number, height: number, row: number, count: number): Shown {
  const first = Math.max(0, Math.min(Math.floor(top / row) - AROUND, count - 1));
  return { first, last: Math.min(count, Math.ceil((top + height) / row) + AROUND) };
}

/** The rows to render of `count` that are each `row` pixels high, in the scrolling `box`. */
export function useWindow(box: RefObject<HTMLElement | null>, row: number, count: number): Shown {
  const [{ top, height }, setPlace] = useState({ top: 0, height: 1_000 });
  const isThere = count > 0;
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const look = () => {
      // A change of less than a row needs no rendering.
      const place = { top: Math.floor(element.scrollTop / row) * row, height: element.clientHeight };
      setPlace((before) => (before.top === place.top && before.height === place.height ? before : place));
    };
    look();
    const sizes = new ResizeObserver(look);
    sizes.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      sizes.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, [box, row, isThere]);
  return shownRows(top, height, row, count);
}
