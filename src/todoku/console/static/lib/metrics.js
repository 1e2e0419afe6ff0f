// Prometheus metrics of the services, in the text format, and what follows from them: pure functions.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/** Return the samples by the name of their metric: `[{labels, value}]`. */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const parts = line.startsWith("#") ? null : LINE.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\[n"\\]/g, (escaped) => ESCAPES[escaped]);
    }
    const samples = found.get(parts[1]) ?? [];
    samples.push({ labels, value: Number(parts[3].replace("+Inf", "Infinity")) });
    found.set(parts[1], samples);
  }
  return found;
}

export const sum = (metrics, name, wanted = () => true) =>
  (metrics?.get(name) ?? []).reduce((total, { labels, value }) => (wanted(labels) ? total + value : total), 0);

export const largest = (metrics, name) =>
  Math.max(0, ...(metrics?.get(name) ?? []).map(({ value }) => value));

export const value = (metrics, name) => metrics?.get(name)?.[0]?.value ?? null;

/** Return the values by one label. */
export function byLabel(metrics, name, label) {
  return new Map((metrics?.get(name) ?? []).map((sample) => [sample.labels[label], sample.value]));
}

/** Return the counts of a histogram by upper bound, over all labels. */
export function buckets(metrics, name) {
  const counts = new Map();
  for (const { labels, value: count } of metrics?.get(`${name}_bucket`) ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + count);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

/** Return the quantile of a histogram as Prometheus computes it: linear within a bucket; null if it is empty. */
export function quantile(counts, share, earlier = []) {
  const before = new Map(earlier);
  const rows = counts.map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
  const total = rows.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const rank = share * total;
  let [low, below] = [0, 0];
  for (const [bound, count] of rows) {
    if (count >= rank) {
      if (bound === Infinity) return low;
      return count === below ? bound : low + ((bound - low) * (rank - below)) / (count - below);
    }
    [low, below] = [bound, count];
  }
  return low;
}
