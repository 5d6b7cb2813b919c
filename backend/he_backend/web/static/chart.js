// Time and bytes of each round as stacked bars, in inline SVG.

import { bytes, draw, make, seconds } from "./dom.js";

const WIDTH = 520, HEIGHT = 190, LEFT = 66, RIGHT = 6, TOP = 8, BOTTOM = 30;
const TIMES = [["encrypt", "encrypt"], ["wire", "wire and waiting"], ["server", "server"], ["decrypt", "decrypt"], ["step", "client step"]];
const SIZES = [["bytes_up", "up"], ["bytes_down", "down"]];

export function roundCharts(rounds) {
  const times = rounds.map((one) => ({ index: one.index, ...one.seconds }));
  return make("div", { class: "charts" },
    chart("Time per round", times, TIMES, seconds, 1),
    chart("Bytes per round", rounds, SIZES, bytes, 1024));
}

function chart(title, rounds, parts, text, base) {
  const sums = rounds.map((one) => parts.reduce((sum, [name]) => sum + number(one[name]), 0));
  const [step, count] = ticks(Math.max(...sums, 0), base);
  const top = step * count;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const slot = (WIDTH - LEFT - RIGHT) / rounds.length;
  const bar = Math.max(1, Math.min(46, slot * 0.7));
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, ${rounds.length} rounds` });
  for (let tick = 0; tick <= count; tick += 1) {
    const at = y(step * tick);
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }),
      draw("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, tick ? text(step * tick).replace(/\.0+(?= )/, "") : "0"));
  }
  const every = Math.ceil(rounds.length / 16);
  rounds.forEach((one, position) => {
    const x = LEFT + slot * position + (slot - bar) / 2;
    const words = [`round ${one.index + 1}`, ...parts.map(([name, label]) => `${label}: ${text(number(one[name]))}`)];
    const group = draw("g", { class: "round" }, draw("title", {}, words.join("\n")));
    let below = 0;
    for (const [name] of parts) {
      const value = number(one[name]);
      group.append(draw("rect", { class: name, x, y: y(below + value), width: bar, height: Math.max(0, y(below) - y(below + value)) }));
      below += value;
    }
    svg.append(group);
    if (position % every === 0) svg.append(draw("text", { x: x + bar / 2, y: HEIGHT - 14, "text-anchor": "middle" }, one.index + 1));
  });
  svg.append(draw("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 1, "text-anchor": "middle" }, "round"));
  const legend = parts.map(([name, label]) => {
    const total = rounds.reduce((sum, one) => sum + number(one[name]), 0);
    return make("li", {}, draw("svg", { viewBox: "0 0 10 10" }, draw("rect", { class: name, width: 10, height: 10, rx: 2 })), `${label} ${text(total)}`);
  });
  return make("section", { class: "chart" }, make("h3", {}, title), svg, make("ul", { class: "legend" }, ...legend));
}

const number = (value) => (typeof value === "number" && Number.isFinite(value) && value > 0 ? value : 0);

// [step, count] of a scale of at most five steps of 1, 2 or 5 times a power of ten (of the unit, for bytes) that holds `most`.
function ticks(most, base) {
  if (!(most > 0)) return [1, 1];
  const unit = base === 1024 ? 1024 ** Math.floor(Math.log(most) / Math.log(1024)) : 1;
  const rough = most / unit / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = unit * power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  return [step, Math.ceil(most / step)];
}
