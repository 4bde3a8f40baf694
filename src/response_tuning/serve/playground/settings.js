"use strict";
// The knobs of sampling, the system message, and presets: prompts of the benchmarks.
import { getJson } from "/api.js";
import { $, h, tell } from "/dom.js";
import { state } from "/state.js";

const KNOBS = [
  // name, label, and what the input allows; the server checks again
  ["temperature", "Temperature (0: greedy)", { min: 0, max: 100, step: "any" }],
  ["top_p", "Top p", { min: 0.0001, max: 1, step: "any" }],
  ["max_new_tokens", "Most new tokens", { min: 1, step: 1 }],
  ["seed", "Seed", { min: 0, step: 1 }],
];

export function fillSettings(sampling, presets) {
  state.sampling = sampling;
  const knobs = KNOBS.map(([name, label, limits]) => {
    const change = (event) => {
      if (event.target.checkValidity()) state.sampling[name] = event.target.valueAsNumber;
    };
    return h("label", {}, label, h("input", { type: "number", name, required: true, value: sampling[name], onchange: change, ...limits }));
  });
  const stop = (event) => (state.sampling.stop = event.target.value.split("\n").filter(Boolean));
  const box = (label, name, onchange) => h("label", { class: "wide-knob" }, label, h("textarea", { rows: 1, name, onchange }));
  document.querySelector(".knobs").replaceChildren(
    ...knobs,
    box("Stop strings, one a line", "stop", stop),
    box("System message", "system", (event) => (state.system = event.target.value)),
    box("First words of every reply", "begin", (event) => (state.beginText = event.target.value)),
  );
  fillPresets(presets);
}

function fillPresets(presets) {
  $("preset").append(...presets.map((name) => h("option", { value: name }, name)));
  $("preset").addEventListener("change", choosePreset);
  $("prompts").addEventListener("change", () => take($("prompts").value));
}

let prompts = [];

async function choosePreset() {
  const name = $("preset").value;
  $("prompts").hidden = true;
  if (!name) return;
  tell(`Reading ${name} ...`);
  try {
    ({ prompts } = await getJson(`/presets/${encodeURIComponent(name)}`));
  } catch (error) {
    tell(error.message);
    return;
  }
  tell(`${prompts.length} prompts of ${name}.`);
  $("prompts").replaceChildren(...prompts.map((prompt, at) => h("option", { value: at }, prompt.at(-1).content.slice(0, 120))));
  $("prompts").hidden = false;
  take(0);
}

// A prompt of one question goes into the box; a system message before it, into its own.
function take(at) {
  const prompt = prompts[at];
  const system = prompt.find((turn) => turn.role === "system");
  state.system = document.querySelector(".knobs [name=system]").value = system?.content ?? "";
  $("question").value = prompt.at(-1).content;
}
