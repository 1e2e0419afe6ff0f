// The map of the saga, from what each service says that it sends and receives: pure functions.

const COMPENSATIONS = new Set(["ShipmentFailedEvent", "StockReleasedEvent", "CancellationRequestedEvent", "CancellationConfirmedEvent"]);

/** Return the edges of the AsyncAPI documents: `{from, to, type, compensates}`. */
export function edgesOf(documents) {
  const senders = new Map();
  const receivers = [];
  for (const document of documents) {
    for (const name of Object.keys(document.operations ?? {})) {
      const [service, direction, type] = name.split(".");
      if (direction === "sends") senders.set(type, service);
      if (direction === "receives") receivers.push([service, type]);
    }
  }
  return receivers
    .filter(([, type]) => senders.has(type))
    .map(([to, type]) => ({ from: senders.get(type), to, type, compensates: COMPENSATIONS.has(type) }))
    .sort((a, b) => a.from.localeCompare(b.from) || a.to.localeCompare(b.to) || a.type.localeCompare(b.type));
}

/** Return the edges between each pair of services as one, with the types and how often they came. */
export function pairs(edges, counts) {
  const found = new Map();
  for (const edge of edges) {
    const key = `${edge.from} ${edge.to}`;
    const pair = found.get(key) ?? { from: edge.from, to: edge.to, types: [], count: 0 };
    const count = counts.get(edge.type) ?? 0;
    pair.types.push({ ...edge, count });
    pair.count += count;
    found.set(key, pair);
  }
  return [...found.values()];
}

/** Return where nodes are drawn: on a circle, the first at the top left, clockwise. */
export function places(names, width, height) {
  if (names.length === 3) return new Map([[names[0], [width * 0.5, height * 0.16]], [names[1], [width * 0.16, height * 0.8]], [names[2], [width * 0.84, height * 0.8]]]);
  return new Map(names.map((name, index) => {
    const angle = (2 * Math.PI * index) / names.length - Math.PI / 2;
    return [name, [width / 2 + Math.cos(angle) * width * 0.36, height / 2 + Math.sin(angle) * height * 0.36]];
  }));
}
