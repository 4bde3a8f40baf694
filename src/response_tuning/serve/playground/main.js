"use strict";
// The page begins here: what the server has, the keyboard, and the buttons of the head.
import { getJson } from "/api.js";
import { $, copy, tell } from "/dom.js";
import { addPane, fillOpening, showPanes, toggleOpening } from "/panes.js";
import { askAll, showRounds, stopAll } from "/rounds.js";
import { fillSettings } from "/settings.js";
import { answerIds, isBusy, permalink, roundsOf, state } from "/state.js";

let templates = [];

async function start() {
  const served = await getJson("/state");
  templates = served.templates;
  state.maxPanes = served.max_panes;
  served.panes.forEach(addPane);
  fillSettings(served.sampling, served.presets);
  fillOpening(templates, served.key_variable);
  showPanes(templates);
  await restore();
  tell(`Answers and votes are kept in ${served.folder}.`);
}

// The answers that a link names.
async function restore() {
  const ids = location.hash.slice(1).split(",").filter(Boolean);
  if (!ids.length) return;
  const answers = await Promise.all(ids.map((id) => getJson(`/answers/${encodeURIComponent(id)}`)));
  state.rounds = roundsOf(answers);
  showRounds();
}

function send() {
  const question = $("question").value;
  if (!question.trim() || isBusy() || !state.panes.length) return;
  const wrong = document.querySelector(".knobs :invalid");
  if (wrong) {
    $("settings").open = true;
    wrong.reportValidity();
    return;
  }
  $("question").value = "";
  askAll(question);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing) return;
  if (event.key === "Escape") stopAll();
  if (event.target.closest("input, textarea, select")) return;
  const named = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (named) {
    event.preventDefault();
    named.click();
  }
});

$("stop").addEventListener("click", stopAll);
$("add").addEventListener("click", () => toggleOpening($("opening").hidden));
$("link").addEventListener("click", () => copy(permalink(), "the link"));
$("export").addEventListener("click", () => {
  // Without answers on the page: all that are kept.
  const ids = answerIds().map((id) => `id=${id}`);
  $("export").href = `/answers.jsonl${ids.length ? `?${ids.join("&")}` : ""}`;
});
$("clear").addEventListener("click", () => {
  state.rounds = [];
  history.replaceState(null, "", location.pathname);
  showRounds();
  $("question").focus();
});
$("blind").addEventListener("click", () => {
  state.blind = !state.blind;
  $("blind").setAttribute("aria-pressed", String(state.blind));
  showPanes(templates);
});

start().catch((error) => tell(error.message));
