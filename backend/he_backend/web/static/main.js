// Puts the page together and keeps it up to date.

import { token } from "./api.js";
import { alertOf, by } from "./dom.js";
import * as inferences from "./inferences.js";
import * as models from "./models.js";

const SOON_MS = 500, LATER_MS = 5000, MODELS_MS = 15000;
const service = document.body.dataset.service;
let timer = 0;
let modelsAt = -MODELS_MS;
let wentWrong = false;

function setUp() {
  for (const element of document.querySelectorAll("[data-only]")) element.hidden = element.dataset.only !== service;
  models.setUp();
  inferences.setUp(() => tick());
  by("token-open").addEventListener("click", () => {
    by("token-form").hidden = !by("token-form").hidden;
    if (!by("token-form").hidden) by("token").focus();
  });
  by("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useToken(by("token").value.trim());
  });
  by("token-forget").addEventListener("click", () => useToken(""));
  document.addEventListener("visibilitychange", () => document.hidden || tick());
}

function useToken(value) {
  token.set(value);
  by("token").value = "";
  by("token-form").hidden = true;
  alertOf(null);
  modelsAt = -MODELS_MS;
  tick();
}

async function tick() {
  clearTimeout(timer);
  let busy = false;
  try {
    const now = await models.health();
    const where = service === "he-client" ? ` · HE-server ${now.server_url}` : ` · ciphertexts on port ${now.ciphertext_port}`;
    healthIs("up", `${now.pending} at work or waiting, at most ${now.most_pending}${where}`);
    busy = await inferences.refresh();
    if (performance.now() - modelsAt > MODELS_MS) {
      modelsAt = performance.now();
      await models.refresh();
    }
    if (wentWrong) alertOf(null);
    wentWrong = false;
  } catch (error) {
    if (error.code === 0) healthIs("down", "no answer");
    if (error.code === 401) by("token-form").hidden = false;
    wentWrong = true;
    alertOf(error);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(tick, busy ? SOON_MS : LATER_MS);
}

function healthIs(state, text) {
  document.querySelector("#health .dot").className = `dot ${state}`;
  by("health-text").textContent = text;
}

setUp();
tick();
