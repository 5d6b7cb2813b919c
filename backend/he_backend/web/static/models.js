// The models: the table, what one consists of, and the forms that name one.

import { get, post } from "./api.js";
import { alertOf, by, make, setRows } from "./dom.js";
import { showEvaluation, showModel } from "./detail.js";

const PRESETS = ["N11_L1", "N11_L1_small", "N12_L4", "N13_L8"];
const MOST_LOOKED_UP = 20;
const segments = new Map(); // model_id -> what /model/show said, or null while it is asked for

export function setUp() {
  for (const id of ["infer-preset", "test-preset"]) {
    by(id).append(...PRESETS.map((name) => make("option", { value: name, selected: name === "N11_L1" }, name)));
  }
  by("load-form").addEventListener("submit", (event) => submit(event, async () => {
    await post("/model/load", { model_type: by("load-type").value.trim(), is_init: 1 });
    by("load-type").value = "";
    await refresh();
  }));
  by("test-form").addEventListener("submit", (event) => submit(event, evaluate));
}

export async function submit(event, work) {
  event.preventDefault();
  const button = event.target.querySelector("button[type=submit]");
  button.disabled = true;
  try {
    alertOf(null);
    await work();
  } catch (error) {
    alertOf(error);
  } finally {
    button.disabled = false;
  }
}

export async function refresh() {
  let models = [];
  let empty = "No models yet.";
  try {
    models = (await post("/model/get_list", { model_type: "all" })).model_list.reverse();
  } catch (error) {
    if (error.code !== 502 && error.code !== 503) throw error; // the HE-client is here, its server is not
    empty = error.message;
  }
  by("models-empty").hidden = models.length > 0;
  by("models-empty").textContent = empty;
  for (const id of ["infer-model", "test-model"]) options(by(id), models);
  rows(models);
  await lookUp(models);
}

function rows(models) {
  const key = models.map((one) => [one.model_id, one.test_acc, count(one)]);
  setRows(by("models"), key, () => models.map((one) => {
    const show = () => post("/model/show", { model_name: one.model_id }).then(showModel, alertOf);
    return make("tr", { class: "pick", tabindex: 0, click: show, keydown: (event) => event.key === "Enter" && show() },
      make("td", {}, one.model_name),
      make("td", {}, one.model_type),
      make("td", { class: "num" }, typeof one.test_acc === "number" ? one.test_acc.toFixed(4) : "–"),
      make("td", { class: "num" }, count(one)),
      make("td", {}, String(one.created || "").slice(0, 16).replace("T", " ")));
  }));
}

const count = (model) => (segments.get(model.model_id) || {}).rounds || (model.meta || {}).rounds || "…";

async function lookUp(models) {
  const unknown = models.slice(0, MOST_LOOKED_UP).filter((one) => !segments.has(one.model_id));
  for (const one of unknown) {
    segments.set(one.model_id, null);
    try {
      segments.set(one.model_id, await post("/model/show", { model_name: one.model_id }));
    } catch (_) {
      segments.set(one.model_id, { rounds: "?" });
    }
    rows(models);
  }
}

function options(select, models) {
  const key = JSON.stringify(models.map((one) => one.model_id));
  if (select.dataset.shown === key) return;
  select.dataset.shown = key;
  const chosen = select.value;
  select.replaceChildren(...models.map((one) => make("option", { value: one.model_id, "data-type": one.model_type }, one.model_name)));
  if (models.some((one) => one.model_id === chosen)) select.value = chosen;
}

export const typeOf = (select) => select.selectedOptions[0].dataset.type;

async function evaluate() {
  const select = by("test-model");
  showEvaluation(await post("/model/test", {
    model_type: typeOf(select),
    model_name: select.value,
    is_encryption: by("test-encrypted").checked,
    enc_param: by("test-preset").value,
    start_batch: Number(by("test-start").value),
    batch_size: Number(by("test-rows").value),
  }));
}

export async function health() {
  return get("/healthz");
}
