"use strict";
// The heads of the panes: which model each is, its template and its adapter; opening and closing.
import { postJson, remove } from "/api.js";
import { $, h, short, tell } from "/dom.js";
import { state } from "/state.js";

export function addPane(about) {
  state.panes.push({ name: about.name, about, template: null, adapter: "on" });
}

export function showPanes(templates) {
  // In a blind round nothing on the page names a model.
  $("panes").replaceChildren(...(state.blind ? [] : state.panes.map((pane) => head(pane, templates))));
  $("add").disabled = state.panes.length >= state.maxPanes || state.blind;
}

function head(pane, templates) {
  const { about } = pane;
  const local = about.kind === "local";
  return h(
    "section",
    { class: "card pane", "data-pane": pane.name, "aria-label": `Model ${pane.name}` },
    h("div", { class: "row" }, h("h2", {}, pane.name), closeButton(pane, templates)),
    h("p", { class: "facts" }, `${about.source} `, h("code", { title: about.model }, short(about.model))),
    h(
      "div",
      { class: "row" },
      local ? templatePicker(pane, templates) : h("span", { class: "facts" }, "template: the server's"),
      about.has_adapter && adapterPicker(pane),
    ),
  );
}

function closeButton(pane, templates) {
  const close = async () => {
    try {
      await remove(`/panes/${encodeURIComponent(pane.name)}`);
    } catch (error) {
      tell(error.message);
      return;
    }
    state.panes = state.panes.filter((one) => one !== pane);
    showPanes(templates);
    $("add").focus();
  };
  return h("button", { type: "button", class: "close", "aria-label": `Close ${pane.name}`, onclick: close }, "Close");
}

function templatePicker(pane, templates) {
  const opened = pane.about.template;
  const names = [opened, ...templates.filter((name) => name !== opened)];
  const change = (event) => (pane.template = event.target.value === opened ? null : event.target.value);
  const options = names.map((name) => h("option", { value: name, selected: name === (pane.template ?? opened) }, name));
  return h("label", {}, "Template ", h("select", { class: "template", onchange: change }, ...options));
}

function adapterPicker(pane) {
  const change = (event) => (pane.adapter = event.target.value);
  const options = ["on", "off"].map((name) => h("option", { selected: name === pane.adapter }, name));
  return h("label", {}, "Adapter ", h("select", { class: "adapter", onchange: change }, ...options));
}

// The form that opens a pane: a model of this machine, or a server's.
export function fillOpening(templates, keyVariable) {
  const form = $("opening");
  const field = (name, label, placeholder) =>
    h("label", {}, label, h("input", { name, placeholder, required: name === "model" }));
  form.replaceChildren(
    field("model", "Model: folder, hub id, or a server's name for it", "runs/demo/rt/seed-0/finetune"),
    field("name", "Name of the pane", "rt"),
    field("url", "Server, if it runs on one", "http://127.0.0.1:8000/v1"),
    h("label", {}, `Send the key in $${keyVariable} to this server`, h("input", { type: "checkbox", name: "send_key" })),
    h("button", { class: "primary" }, "Open"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(form));
    tell(`Loading ${fields.model} ...`);
    try {
      addPane(await postJson("/panes", { ...fields, send_key: fields.send_key === "on" }));
    } catch (error) {
      tell(error.message);
      return;
    }
    tell(`Opened ${fields.model}.`);
    form.reset();
    toggleOpening(false);
    showPanes(templates);
  });
}

export function toggleOpening(open) {
  $("opening").hidden = !open;
  $("add").setAttribute("aria-expanded", String(open));
  (open ? $("opening").elements[0] : $("question")).focus();
}
