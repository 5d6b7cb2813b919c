// One inference, evaluation or model in full.

import { roundCharts } from "./chart.js";
import { by, bytes, make, seconds } from "./dom.js";

const MOST_ROWS = 25;

export function showRecord(record) {
  const figures = record.figures || {};
  const encrypted = record.is_encryption === "yes";
  show(`inference ${record.inference_id}`, `${record.model_name}, ${record.inference_size} rows`, [
    facts([
      ["State", record.queued ? "waiting for its turn" : record.state],
      ["Encrypted", encrypted ? presetOf(record) : "no: the server saw the rows"],
      ["Started (UTC)", record.start_time],
      ["Ended (UTC)", record.finish_time || record.stop_time],
      ...sums(figures),
    ]),
    record.state === "started" && record.rounds ? progressOf(record) : null,
    record.message ? make("p", { class: `words ${record.state}` }, record.message) : null,
    charts(figures),
    record.state === "finished" ? predictions(record) : null,
  ]);
}

export function showEvaluation(done) {
  show(`evaluation ${done.model_id}`, `Evaluation of ${done.model_name}`, [
    facts([
      ...quality(done),
      ["Rows", done.batch_size],
      ["Encrypted", done.is_enc ? presetOf(done.figures) : "no"],
      ...(done.is_enc ? sums(done.figures) : [["Time", done.time_cost]]),
    ]),
    make("p", { class: "note" }, done.log),
    charts(done.figures || {}),
  ]);
}

function quality(done) {
  if (typeof done.test_acc === "number") return [["Accuracy", done.test_acc.toFixed(4)]];
  const names = { rmse: "Root mean squared error", r2: "Variance explained" };
  const measured = Object.keys(names).filter((name) => typeof (done.figures || {})[name] === "number");
  return measured.map((name) => [names[name], done.figures[name].toFixed(4)]);
}

export function showModel(model) {
  const head = ["Round", "Client computes before it", "Client sends", "Server answers"];
  const lines = model.segments.map((one) => [one.index + 1, one.client_step, one.sends, one.answers]);
  lines.push(["end", model.last_step, "", ""]);
  const shape = (specs) => specs.map((one) => `${one.name} ${one.dtype} [${["rows", ...one.shape].join(", ")}]`).join("; ");
  show(`model ${model.model_id}`, `${model.model_name}`, [
    facts([
      ["Type", model.model_type],
      ["Accuracy", typeof model.test_acc === "number" ? model.test_acc.toFixed(4) : "not measured"],
      ["Owner", model.model_owner],
      ["Id", model.model_id],
      ["Takes", shape(model.inputs)],
      ["Gives", shape(model.outputs)],
    ]),
    table(head, lines, [2, 3], "Encrypted values per row. The server holds all weights; the client sees what comes back in the clear."),
    model.public_constants.length ? make("p", { class: "note" }, `Travels to clients: ${model.public_constants.join("; ")}`) : null,
  ]);
}

export function progressOf(record) {
  const bar = make("progress", { max: record.rounds, value: record.rounds_done, "aria-label": "rounds" });
  return make("p", {}, bar, ` ${record.rounds_done} of ${record.rounds} rounds`);
}

function show(key, title, children) {
  const detail = by("detail");
  const close = make("button", { type: "button", class: "quiet", click: () => hide() }, "Close");
  detail.dataset.key = key;
  detail.replaceChildren(make("div", { class: "head" }, make("h2", {}, title), close), ...children.filter(Boolean));
  const appears = detail.hidden;
  detail.hidden = false;
  if (appears) detail.scrollIntoView({ behavior: "smooth", block: "nearest" });
}

function hide() {
  by("detail").hidden = true;
  by("detail").dataset.key = "";
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return make("dl", { class: "facts" }, ...shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", { class: "words" }, value))));
}

function sums(figures) {
  const times = figures.seconds || {};
  return [
    ["Time", seconds(times.total)],
    ["Set-up", seconds(times.setup)],
    ["Rounds", figures.rounds],
    ["Up", figures.bytes_up === undefined ? "" : bytes(figures.bytes_up)],
    ["Down", figures.bytes_down === undefined ? "" : bytes(figures.bytes_down)],
    ["Precision, at least", figures.expected_bits === undefined ? "" : `${figures.expected_bits} bits`],
    ["Engine", figures.engine],
  ];
}

const charts = (figures) => ((figures.per_round || []).length ? roundCharts(figures.per_round) : null);

export const presetOf = (record) => String(record.encryption_parameter || record.preset || "").replace(/^he_seal_ckks_config_|\.json$/g, "");

function table(head, lines, numbers, note) {
  const cls = (column) => ({ class: numbers.includes(column) ? "num" : null });
  return make("div", {},
    make("table", {},
      make("thead", {}, make("tr", {}, ...head.map((text, column) => make("th", cls(column), text)))),
      make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((cell, column) => make("td", cls(column), cell)))))),
    note ? make("p", { class: "note" }, note) : null);
}

function predictions(record) {
  if (!record.inference_result) return make("p", { class: "note" }, "The predictions are not in this service's memory any more.");
  const values = JSON.parse(record.inference_result); // null: no number
  const save = make("button", { type: "button", class: "quiet", click: () => download(record) }, "Save as JSON");
  const flat = values.every((row) => Array.isArray(row) && row.length > 1 && row.every((score) => typeof score === "number"));
  const lines = values.slice(0, MOST_ROWS).map((row, index) => (flat ? scored(row, index) : [index, JSON.stringify(row)]));
  const head = flat ? ["Row", "Largest at", "Score", "Ahead of the next by"] : ["Row", "Output"];
  const more = values.length > MOST_ROWS ? `The first ${MOST_ROWS} of ${values.length} rows.` : "";
  return make("div", { id: "predictions" }, make("div", { class: "head" }, make("h3", {}, "Predictions"), save), table(head, lines, flat ? [0, 1, 2, 3] : [0], more));
}

function scored(row, index) {
  const order = row.map((_, place) => place).sort((a, b) => row[b] - row[a]);
  return [index, order[0], row[order[0]].toFixed(4), (row[order[0]] - row[order[1]]).toFixed(4)];
}

function download(record) {
  const url = URL.createObjectURL(new Blob([record.inference_result], { type: "application/json" }));
  make("a", { href: url, download: `${record.inference_id}.json` }).click();
  URL.revokeObjectURL(url);
}
