// A long list of which only what is seen is drawn.
import { html, useEffect, useRef, useState } from "../lib/html.js";

const AROUND = 5;

export function VirtualList({ rows, height, label, children }) {
  const ref = useRef(null);
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
  return html`<div class="tail" ref=${ref} tabindex="0" role="region" aria-label=${label}>
    <div class="pad" style=${{ height: `${rows.length * height}px` }}>${shown.map((row, index) => children(row, (first + index) * height))}</div>
  </div>`;
}
