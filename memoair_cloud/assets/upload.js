// Uploads of many files: drop files and folders, send them in parts, try a part again after a broken connection.
// Without it, the form sends the chosen files in one request.
"use strict";

const PART_BYTES = 16 << 20;
const PART_FILES = 100;
const ATTEMPTS = 5;

async function* walk(entry, path) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    yield { name: path + file.name, file };
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const child of entries) yield* walk(child, `${path}${entry.name}/`);
  }
}

// The name of a chosen folder itself is left out: ids of documents are paths within it.
const withoutTop = (name) => name.slice(name.indexOf("/") + 1);

async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ name: file.name, file }));
  const found = [];
  for (const entry of entries) {
    for await (const chosen of walk(entry, "")) {
      found.push({ name: entry.isDirectory && entries.length === 1 ? withoutTop(chosen.name) : chosen.name, file: chosen.file });
    }
  }
  return found;
}

function splitParts(chosen, maxBytes) {
  const parts = [];
  let part = [], bytes = 0;
  for (const item of chosen) {
    if (part.length && (part.length === PART_FILES || bytes + item.file.size > Math.min(PART_BYTES, maxBytes / 2))) {
      parts.push(part);
      part = [], bytes = 0;
    }
    part.push(item);
    bytes += item.file.size;
  }
  if (part.length) parts.push(part);
  return parts;
}

async function post(url, body, token) {
  for (let attempt = 1; ; attempt++) {
    try {
      const reply = await fetch(url, { method: "POST", body, headers: { "X-Form-Token": token } });
      if (reply.ok && reply.headers.get("content-type") === "application/json") return await reply.json();
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      const message = reply.ok ? "The session has ended: sign in again." : page.querySelector("[role=alert]")?.textContent.trim();
      const error = new Error(message || `The server answered with status ${reply.status}.`);
      error.isFinal = reply.status < 500;
      throw error;
    } catch (error) {
      if (error.isFinal || attempt === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
    }
  }
}

function setUp(form) {
  const drop = form.querySelector("[data-drop]");
  const input = form.querySelector("input[type=file]");
  const list = form.querySelector("[data-chosen]");
  const status = form.querySelector("[data-status]");
  let chosen = [];

  const show = () => {
    list.replaceChildren(...chosen.slice(0, 20).map(({ name }) => Object.assign(document.createElement("li"), { textContent: name })));
    if (chosen.length > 20) list.append(Object.assign(document.createElement("li"), { textContent: `and ${chosen.length - 20} more` }));
    list.hidden = !chosen.length;
    status.textContent = chosen.length ? `${chosen.length} files chosen` : "";
  };
  const add = (items) => {
    const byName = new Map(chosen.map((item) => [item.name, item]));
    for (const item of items) byName.set(item.name, item);
    chosen = [...byName.values()];
    input.value = "";
    show();
  };

  for (const element of form.querySelectorAll("[data-script-only]")) element.hidden = false;
  input.addEventListener("change", () => {
    const files = [...input.files];
    add(files.map((file) => ({ name: file.webkitRelativePath ? withoutTop(file.webkitRelativePath) : file.name, file })));
    input.webkitdirectory = false;
  });
  form.querySelector("[data-choose-folder]").addEventListener("click", () => {
    input.webkitdirectory = true;
    input.click();
  });
  input.addEventListener("cancel", () => { input.webkitdirectory = false; });
  for (const type of ["dragover", "dragenter"]) drop.addEventListener(type, (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    add(await droppedFiles(event.dataTransfer));
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = new FormData(form);
    fields.delete("files");
    const token = fields.get("form_token");
    if (!chosen.length) {
      status.textContent = "Choose at least one file.";
      return;
    }
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    try {
      let target = form.action;
      const isNew = !/\/files(\?|$)/.test(target);
      fields.set("by_script", "true");
      if (isNew) target = (await post(target, fields, token)).upload;
      const [path, query] = (isNew ? target : target.replace(/\/files(?=\?|$)/, "")).split("?");
      const url = (step) => `${path}${step}${query ? `?${query}` : ""}`;
      let sent = 0;
      for (const part of splitParts(chosen, Number(form.dataset.maxBytes))) {
        const body = new FormData();
        body.set("by_script", "true");
        for (const { name, file } of part) body.append("files", file, name);
        await post(url("/files"), body, token);
        sent += part.length;
        status.textContent = `Sent ${sent} of ${chosen.length} files`;
      }
      if (isNew) await post(url("/start"), fields, token);
      location.assign(url(""));
    } catch (error) {
      status.textContent = error.message;
      button.disabled = false;
    }
  });
}

for (const form of document.querySelectorAll("form[data-upload]")) setUp(form);
