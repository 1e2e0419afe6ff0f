// Times in the zone of the reader, and durations in words.
import { signal } from "./html.js";
import { formatter } from "./formats.js";
import { number, t } from "./i18n.js";
import { language, zone } from "./prefs.js";

/** The time now, in milliseconds; it moves once a second while the page is visible. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

const options = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };

function format(when, chosen) {
  const timeZone = zone.value === "UTC" ? "UTC" : undefined;
  return formatter(Intl.DateTimeFormat, language.value === "ja" ? "ja-JP" : "en-GB", { ...chosen, timeZone }).format(new Date(when));
}

export const dateTime = (when) => format(when, options);
export const precise = (when) => format(when, { ...options, fractionalSecondDigits: 3 });
export const clock = (when) => format(when, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hour12: false });

export const zoneName = () =>
  zone.value === "UTC" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Return a duration in words: two units at most. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 1) return t("time.ms", { value: number(Math.max(0, Math.round(seconds * 1000))) });
  if (seconds < 10) return t("time.s", { value: number(seconds, { maximumFractionDigits: 1 }) });
  const whole = Math.round(seconds);
  const parts = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => whole >= size);
  let rest = whole;
  return parts
    .slice(first, first + 2)
    .map(([unit, size]) => {
      const value = Math.floor(rest / size);
      rest -= value * size;
      return value ? t(`time.${unit}`, { value: number(value) }) : "";
    })
    .filter(Boolean)
    .join(language.value === "ja" ? "" : " ");
}

/** Return how long a call to the carrier may take, or a pause between two, as shipping tells it (`lib/metrics.js`); an older one does not. */
export const callLimit = (seconds) => (seconds === null ? t("time.fewSeconds") : duration(seconds));
export const pauseLimit = (seconds) => (seconds === null ? t("time.fewMinutes") : duration(seconds));

export const secondsSince = (when) => Math.max(0, (now.value - Date.parse(when)) / 1000);
export const ago = (when) => t("time.ago", { duration: duration(secondsSince(when)) });
