// A long list of which only what is seen is drawn, on elements that are used again.
import { html, useEffect, useRef, useState } from "../lib/html.js";

const AROUND = 5;

/** Return the element of each row: the one that it had, else one that is free, so that none has to be made anew where
    many rows are replaced at once. */
export function assign(rows, before) {
  const staying = new Set(rows.map((row) => row.id));
  const free = [...before].filter(([id]) => !staying.has(id)).map(([, slot]) => slot);
  let unused = Math.max(-1, ...before.values()) + 1;
  return new Map(rows.map(({ id }) => [id, before.get(id) ?? free.shift() ?? unused++]));
}

/** `children(row, top, slot)` draws a row, which has an `id`; the slot is the key of its element. */
export function VirtualList({ rows, height, label, children }) {
  const ref = useRef(null);
  const slots = useRef(new Map());
  const [view, setView] = useState({ top: 0, size: 600 });
  useEffect(() => {
    const element = ref.current;
    let frame = 0;
    const look = () => {
      frame = 0;
      setView({ top: element.scrollTop, size: element.clientHeight });
    };
    const later = () => (frame ||= requestAnimationFrame(look));
    element.addEventListener("scroll", later, { passive: true });
    const observer = new ResizeObserver(later);
    observer.observe(element);
    return () => {
      cancelAnimationFrame(frame);
      element.removeEventListener("scroll", later);
      observer.disconnect();
    };
  }, []);
  const first = Math.max(0, Math.floor(view.top / height) - AROUND);
  const shown = rows.slice(first, Math.ceil((view.top + view.size) / height) + AROUND);
  slots.current = assign(shown, slots.current);
  return html`<div class="tail" ref=${ref} tabindex="0" role="region" aria-label=${label}>
    <div class="pad" style=${{ height: `${rows.length * height}px` }}>${shown.map((row, index) => children(row, (first + index) * height, slots.current.get(row.id)))}</div>
  </div>`;
}
