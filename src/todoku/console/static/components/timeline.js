// The events of an order in lanes of services.
import { html, useMemo } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { about } from "../lib/api.js";
import { curve, LANE_HEIGHT, layout, LEFT, TOP } from "../lib/timeline.js";
import { clock, duration, now } from "../lib/time.js";

export function Timeline({ events, open }) {
  const time = open ? now.value : null;
  const drawn = useMemo(() => layout(events, about.value.services, time), [events, time, about.value]);
  const choose = (id) => {
    const row = document.getElementById(`event-${id}`);
    row?.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    row?.querySelector("summary")?.focus({ preventScroll: true });
  };
  return html`<div class="timeline" tabindex="0" role="region" aria-label=${t("timeline.label")}>
    <svg width=${drawn.width} height=${drawn.height + 10} role="img" aria-label=${t("timeline.described", { n: events.length })}>
      <defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 1L7 4L0 7z" fill="var(--line-strong)" /></marker><marker id="tip-back" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 1L7 4L0 7z" fill="var(--undo)" /></marker></defs>
      ${drawn.lanes.map((lane, index) => {
        const y = TOP + index * LANE_HEIGHT + LANE_HEIGHT / 2;
        return html`<g key=${lane}><line class="lane" x1=${LEFT} x2=${drawn.width - 10} y1=${y} y2=${y} /><text class=${`lane-name service ${lane}`} x="14" y=${y + 4} fill="currentColor">${lane}</text></g>`;
      })}
      ${drawn.waits.map((wait) => html`<g key=${`wait-${wait.from}`}><line class="wait-line" x1=${(wait.from + wait.to) / 2} x2=${(wait.from + wait.to) / 2} y1=${TOP - 4} y2=${drawn.height} /><text class="wait" x=${(wait.from + wait.to) / 2} y="16">${duration(wait.seconds)}</text></g>`)}
      ${drawn.arrows.map((arrow) => html`<path key=${arrow.to.id} class=${`arrow ${arrow.compensates ? "compensates" : ""}`} d=${curve(arrow)} marker-end=${arrow.compensates ? "url(#tip-back)" : "url(#tip)"} />`)}
      ${drawn.nowX !== null && html`<line class="now" x1=${drawn.nowX} x2=${drawn.nowX} y1=${TOP} y2=${drawn.height} /><text class="now-name" x=${drawn.nowX} y=${drawn.height + 8}>${t("timeline.now")}</text>`}
      ${drawn.points.map((point) => html`<g key=${point.id} class="point" onClick=${() => choose(point.id)}><title>${`${point.event.type} · ${clock(point.event.time)}`}</title><circle class=${`dot ${point.kind}`} cx=${point.x} cy=${point.y} r="8" />${point.kind === "retry" && html`<text x=${point.x} y=${point.y - 14} class="wait">${`×${point.event.data.attempts}`}</text>`}</g>`)}
    </svg>
  </div>`;
}
