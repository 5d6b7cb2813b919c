// The inferences: the table with live progress, a new one, the one that is shown in full.

import { post, upload } from "./api.js";
import { alertOf, by, make, seconds, setRows } from "./dom.js";
import { presetOf, showRecord } from "./detail.js";
import { submit, typeOf } from "./models.js";

const SHOWN = 20;
let chosen = "";
let chosenState = "";

export function setUp(refreshSoon) {
  by("infer-form").addEventListener("submit", (event) => submit(event, async () => {
    await start();
    refreshSoon();
  }));
  const says = () => {
    by("infer-note").textContent = by("infer-encrypted").checked
      ? "The file is read by this HE-client and kept in its memory; it is not passed on."
      : "NOT encrypted: these rows go to the HE-server in the clear.";
    by("infer-note").classList.toggle("failed", !by("infer-encrypted").checked);
    by("infer-preset").disabled = !by("infer-encrypted").checked;
  };
  by("infer-encrypted").addEventListener("change", says);
}

async function start() {
  const select = by("infer-model");
  const name = await upload(by("infer-file").files[0]);
  try {
    const rows = by("infer-rows").value;
    const started = await post("/model/inference", {
      model_type: typeOf(select),
      model_name: select.value,
      inf_file_name: name,
      is_encryption: by("infer-encrypted").checked ? "yes" : "no",
      encryption_params: by("infer-preset").value,
      wait: false,
      ...(rows ? { batch_size: Number(rows) } : {}),
    });
    choose(started.inference_id);
  } finally {
    await post("/model/deletefile", { inf_file_name: name }).catch(() => null); // a started inference has its rows already
  }
}

// True while something runs.
export async function refresh() {
  const records = (await post("/model/get_inference", { limit: SHOWN })).inference_list;
  by("inferences-empty").hidden = records.length > 0;
  const key = [chosen, records.map((one) => [one.inference_id, one.state, one.rounds_done, one.rounds, one.queued])];
  setRows(by("inferences"), key, () => records.map(row));
  const shown = records.find((one) => one.inference_id === chosen);
  if (shown && chosenState !== state(shown)) await detail(shown);
  return records.some((one) => one.state === "started");
}

const state = (record) => JSON.stringify([record.inference_id, record.state, record.queued, record.rounds_done]);

async function detail(record) {
  chosenState = state(record);
  const full = record.state === "finished" ? (await post("/model/get_inference", { inference_id: record.inference_id })).inference_list[0] : record;
  if (full.inference_id === chosen) showRecord(full);
}

function choose(inferenceId) {
  chosen = inferenceId;
  chosenState = "";
}

function row(record) {
  const show = () => {
    choose(record.inference_id);
    refresh().catch(alertOf);
  };
  const stop = (event) => {
    event.stopPropagation();
    post("/model/stop_inference", { inference_id: record.inference_id }).catch(alertOf);
  };
  const runs = record.state === "started";
  const word = record.queued ? "waiting" : runs ? "running" : record.state;
  const progress = record.rounds ? `${record.rounds_done} of ${record.rounds}` : "";
  return make("tr", { class: record.inference_id === chosen ? "pick chosen" : "pick", tabindex: 0, "data-id": record.inference_id, click: show,
    keydown: (event) => event.key === "Enter" && event.target === event.currentTarget && show() },
    make("td", {}, record.start_time),
    make("td", {}, record.model_name),
    make("td", { class: "num" }, record.inference_size),
    make("td", {}, record.is_encryption === "yes" ? presetOf(record) : "not encrypted"),
    make("td", { class: record.state }, word),
    make("td", {}, runs ? make("progress", { max: Math.max(1, record.rounds), value: record.rounds_done, "aria-label": "rounds" }) : null, runs && progress ? ` ${progress}` : progress),
    make("td", { class: "num" }, seconds(((record.figures || {}).seconds || {}).total)),
    make("td", { class: "num" }, runs ? make("button", { type: "button", class: "quiet", click: stop }, "Stop") : null));
}
