// A small line of how a figure went.
import { html } from "../lib/html.js";

const WIDTH = 120;
const HEIGHT = 28;

/** Return the points of a line through values; those that are null are left out. */
export function points(values, width = WIDTH, height = HEIGHT) {
  const known = values.map((value, index) => [index, value]).filter(([, value]) => value !== null && Number.isFinite(value));
  if (known.length < 2) return [];
  const high = Math.max(...known.map(([, value]) => value));
  const low = Math.min(0, ...known.map(([, value]) => value));
  const last = values.length - 1;
  return known.map(([index, value]) => [(index / last) * width, height - 2 - ((value - low) / (high - low || 1)) * (height - 4)]);
}

export function Sparkline({ values, label }) {
  const line = points(values);
  if (!line.length) return html`<svg class="spark" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true" />`;
  const written = line.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  return html`<svg class="spark" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${label}>
    <polygon points=${`${line[0][0]},${HEIGHT} ${written} ${line.at(-1)[0]},${HEIGHT}`} /><polyline points=${written} />
  </svg>`;
}
