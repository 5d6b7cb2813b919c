// Requests to this service. The token, where one was typed, lives in this tab's session and goes to this origin only.

const KEY = "he-nn-token";

export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export async function get(path) {
  return ask(path, { method: "GET" });
}

export async function post(path, values = {}) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) });
}

export async function upload(file) {
  const form = new FormData();
  form.append("file_name", fileName(file.name));
  form.append("file", file, "rows.npy");
  return (await ask("/model/uploadfile", { method: "POST", body: form })).inf_file_name;
}

// The service takes plain names only.
function fileName(name) {
  const stem = name.replace(/\.npy$/i, "").replace(/[^A-Za-z0-9._-]/g, "_").replace(/^[^A-Za-z0-9]+/, "").slice(0, 60);
  return `${stem || "rows"}.npy`;
}

async function ask(path, options) {
  const headers = { ...(options.headers || {}) };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
  } catch (_) {
    throw new Refused(0, "The service does not answer.");
  }
  let envelope;
  try {
    envelope = await reply.json();
  } catch (_) {
    throw new Refused(reply.status, `The answer cannot be read (HTTP ${reply.status}).`);
  }
  if (reply.status !== 200) throw new Refused(reply.status, String(envelope.message || `HTTP ${reply.status}`));
  return envelope.data;
}
