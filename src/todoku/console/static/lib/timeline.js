// Where the events of an order are drawn: lanes of services, and gaps that do not squash what is close together.
import { inOrder, kindOf } from "./story.js";

export const LANE_HEIGHT = 64;
export const TOP = 28;
export const LEFT = 96;
const STEP_MIN = 46;
const STEP_MAX = 150;
const SAME_LANE_MIN = 46;

/** Return how far apart two events are drawn that are so many seconds apart: it grows with the logarithm. */
export function step(seconds) {
  return Math.min(STEP_MAX, STEP_MIN + 18 * Math.log10(1 + seconds * 100));
}

/** Waits from this many seconds on are labelled. */
export const WAIT_SECONDS = 0.5;

/** Return the lanes, points, arrows and waits of an order's events. `now` is given while it is open. */
export function layout(events, services, now = null) {
  const ordered = inOrder(events);
  const lanes = [...new Set([...services, ...ordered.map((event) => event.source)])];
  const points = [];
  const waits = [];
  let x = LEFT + 24;
  let before = null;
  for (const event of ordered) {
    const at = Date.parse(event.time);
    if (before !== null) {
      const seconds = Math.max(0, (at - before) / 1000);
      const width = Math.max(SAME_LANE_MIN, step(seconds));
      if (seconds >= WAIT_SECONDS) waits.push({ from: x, to: x + width, seconds });
      x += width;
    }
    before = at;
    points.push({ id: event.id, x, y: laneY(lanes, event.source), kind: kindOf(event.type), event });
  }
  const byId = new Map(points.map((point) => [point.id, point]));
  const arrows = points
    .filter((point) => byId.has(point.event.cause))
    .map((point) => ({ from: byId.get(point.event.cause), to: point, compensates: isCompensation(point.event) }));
  let nowX = null;
  if (now !== null && before !== null) {
    const seconds = Math.max(0, (now - before) / 1000);
    nowX = x + step(seconds);
    if (seconds >= WAIT_SECONDS) waits.push({ from: x, to: nowX, seconds, open: true });
  }
  return { lanes, points, arrows, waits, nowX, width: (nowX ?? x) + 90, height: TOP + lanes.length * LANE_HEIGHT };
}

const laneY = (lanes, source) => TOP + lanes.indexOf(source) * LANE_HEIGHT + LANE_HEIGHT / 2;

/** Return whether an event undoes something. */
export function isCompensation(event) {
  return event.type === "StockReleasedEvent" || event.type === "CancellationConfirmedEvent" || event.type === "CancellationRequestedEvent";
}

/** Return the path of an arrow: a curve between lanes, an arc within one. */
export function curve({ from, to }) {
  const start = from.x + 8;
  const end = to.x - 10;
  if (from.y === to.y) return `M${start} ${from.y}L${end} ${to.y}`;
  const bend = Math.max(14, (end - start) / 2);
  return `M${start} ${from.y}C${start + bend} ${from.y} ${end - bend} ${to.y} ${end} ${to.y}`;
}
