// One small line chart: SVG, one series, hover to read a point. All text goes in through textContent.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 132;
const MARGIN = { top: 10, right: 10, bottom: 20, left: 54 };
/** More points than this are thinned to the minimum and maximum of each bucket. */
const MAX_POINTS = 600;

/**
 * @param {{ title: string, hint: string, format: (value: number) => string }} options
 * @returns {{ element: HTMLElement, draw: (points: [number, number][]) => void }} points are [unit, value], by unit
 */
export function createChart({ title, hint, format }) {
  const element = document.createElement("figure");
  element.className = "chart";
  const caption = document.createElement("figcaption");
  const name = document.createElement("span");
  name.textContent = title;
  name.title = hint;
  const latest = document.createElement("strong");
  caption.append(name, latest);
  const svg = node("svg", { height: HEIGHT, role: "img" });
  element.append(caption, svg);

  let points = [];
  let shown = [];
  let scale;

  function draw(next = points) {
    points = next;
    const finite = points.filter(([, value]) => Number.isFinite(value));
    const last = points.at(-1);
    latest.textContent = last === undefined ? "" : format(last[1]);
    svg.replaceChildren();
    const width = svg.clientWidth || 320;
    if (finite.length === 0) return;
    svg.setAttribute("aria-label", `${title}: ${latest.textContent} at ${last[0]}`);
    shown = thin(finite);
    scale = makeScale(finite, width);
    for (const value of scale.ticks) {
      const y = scale.y(value);
      svg.append(
        node("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
        label(MARGIN.left - 6, y + 3.5, "end", format(value)),
      );
    }
    svg.append(label(MARGIN.left, HEIGHT - 5, "start", String(finite[0][0])));
    if (finite.length > 1)
      svg.append(label(width - MARGIN.right, HEIGHT - 5, "end", String(finite.at(-1)[0])));
    const path = shown.map(([unit, value], i) => `${i === 0 ? "M" : "L"}${scale.x(unit)},${scale.y(value)}`);
    svg.append(node("path", { class: "line", d: path.join("") }));
    const [unit, value] = finite.at(-1);
    svg.append(node("circle", { class: "dot", cx: scale.x(unit), cy: scale.y(value), r: 3 }));
  }

  const cursor = node("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
  svg.addEventListener("pointermove", (event) => {
    if (scale === undefined || shown.length === 0) return;
    const x = event.clientX - svg.getBoundingClientRect().left;
    const nearest = shown.reduce((a, b) =>
      Math.abs(scale.x(b[0]) - x) < Math.abs(scale.x(a[0]) - x) ? b : a,
    );
    cursor.setAttribute("x1", scale.x(nearest[0]));
    cursor.setAttribute("x2", scale.x(nearest[0]));
    svg.append(cursor);
    latest.textContent = `${nearest[0]}: ${format(nearest[1])}`;
  });
  svg.addEventListener("pointerleave", () => draw());
  new ResizeObserver(() => draw()).observe(element);

  return { element, draw };
}

function makeScale(points, width) {
  const units = points.map(([unit]) => unit);
  const values = points.map(([, value]) => value);
  const [firstUnit, lastUnit] = [Math.min(...units), Math.max(...units)];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const plotWidth = width - MARGIN.left - MARGIN.right;
  const plotHeight = HEIGHT - MARGIN.top - MARGIN.bottom;
  return {
    x: (unit) => round(MARGIN.left + ((unit - firstUnit) / (lastUnit - firstUnit || 1)) * plotWidth),
    y: (value) => round(MARGIN.top + (1 - (value - low) / (high - low)) * plotHeight),
    // A middle that is 0 but for rounding is shown as 0.
    ticks: [low, Math.abs(low + high) < (high - low) * 1e-3 ? 0 : (low + high) / 2, high],
  };
}

function thin(points) {
  if (points.length <= MAX_POINTS) return points;
  const size = Math.ceil(points.length / (MAX_POINTS / 2));
  const kept = [];
  for (let start = 0; start < points.length; start += size) {
    const bucket = points.slice(start, start + size);
    const lowest = bucket.reduce((a, b) => (b[1] < a[1] ? b : a));
    const highest = bucket.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(lowest[0] <= highest[0] ? [lowest, highest] : [highest, lowest]));
  }
  return kept;
}

function label(x, y, anchor, text) {
  const element = node("text", { x, y, "text-anchor": anchor });
  element.textContent = text;
  return element;
}

function node(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const round = (value) => Math.round(value * 10) / 10;
