"use strict";
// Rounds: a question, the answers to it side by side, and what can be asked again.
import { answerEvents, keptAnswer } from "/api.js";
import { answerCard } from "/answer.js";
import { $, h, tell } from "/dom.js";
import { conversation, isBusy, newSlot, state } from "/state.js";
import { ballot, shuffled } from "/vote.js";

const places = new WeakMap(); // round -> its element

export function showRounds() {
  $("rounds").replaceChildren(...state.rounds.map(showRound));
  $("empty").hidden = state.rounds.length > 0;
}

function showRound(round) {
  const at = state.rounds.indexOf(round);
  const element = h(
    "article",
    { class: "round", "aria-label": `Round ${at + 1}` },
    h(
      "div",
      { class: "question" },
      h("div", { class: "row" }, h("h2", {}, `Question ${at + 1}`), editQuestion(round)),
      h("div", { class: "text", dir: "auto" }, round.question),
    ),
    h("div", { class: "columns" }, ...round.slots.map((slot, index) => answerCard(round, slot, index, again))),
    ballot(round, () => refresh(round)),
  );
  places.set(round, element);
  return element;
}

export function refresh(round) {
  if (places.get(round)?.isConnected) places.get(round).replaceWith(showRound(round));
}

function editQuestion(round) {
  const edit = (event) => {
    const box = h("textarea", { rows: 3, "aria-label": "Edited question" });
    box.value = round.question;
    const save = () => {
      if (!box.value.trim()) return;
      state.rounds.length = state.rounds.indexOf(round); // what follows answered another question
      askAll(box.value);
    };
    const buttons = h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "primary", onclick: save }, "Ask again"),
      h("button", { type: "button", onclick: () => refresh(round) }, "Cancel"),
    );
    event.target.closest(".question").querySelector(".text").replaceWith(box, buttons);
    event.target.hidden = true;
    box.focus();
  };
  return h("button", { type: "button", class: "edit", disabled: isBusy(), onclick: edit }, "Edit");
}

// A new round: all panes are asked at once.
export function askAll(question) {
  const slots = state.panes.map((pane) => newSlot(pane.name));
  const round = { question, slots: state.blind ? shuffled(slots) : slots, blind: state.blind, revealed: !state.blind };
  state.rounds.push(round);
  showRounds();
  for (const slot of round.slots) run(round, slot);
  places.get(round).scrollIntoView({ block: "nearest" });
}

// One pane's answer again, alone; rounds after it stay, as the conversation they were asked in.
function again(round, slot, begin = {}) {
  Object.assign(slot, newSlot(slot.pane));
  run(round, slot, begin);
}

async function run(round, slot, begin = {}) {
  const pane = state.panes.find((one) => one.name === slot.pane);
  if (!pane) {
    Object.assign(slot, { status: "error", error: `the pane ${slot.pane} is closed` });
    refresh(round);
    return;
  }
  slot.controller = new AbortController();
  slot.status = "streaming";
  refresh(round);
  showBusy();
  const question = {
    pane: pane.name,
    template: pane.template,
    adapter: pane.adapter,
    messages: conversation(pane.name, state.rounds.indexOf(round)),
    sampling: state.sampling,
    begin_text: begin.begin_ids ? "" : state.beginText,
    ...begin,
  };
  try {
    for await (const event of answerEvents(question, slot.controller.signal)) receive(slot, event);
    if (slot.status === "streaming") throw new Error("the playground has ended");
  } catch (error) {
    await ended(slot, error);
  }
  slot.controller = null;
  refresh(round);
  showBusy();
}

function receive(slot, event) {
  if (event.type === "start") slot.start = event;
  if (event.type === "text") slot.text += event.text;
  if (event.type === "end") Object.assign(slot, { answer: event.answer, text: event.answer.response, status: "done" });
  if (event.type === "error") Object.assign(slot, { error: event.error, status: "error" });
  slot.changed?.(event);
}

async function ended(slot, error) {
  try {
    if (!slot.controller.signal.aborted || !slot.start) throw error;
    const answer = await keptAnswer(slot.start.id);
    Object.assign(slot, { answer, text: answer.response, status: "done" });
  } catch (failure) {
    const stopped = slot.controller.signal.aborted && !slot.start;
    Object.assign(slot, { status: "error", error: stopped ? "stopped before it began" : failure.message });
  }
}

export function stopAll() {
  for (const round of state.rounds) for (const slot of round.slots) slot.controller?.abort();
}

function showBusy() {
  const busy = isBusy();
  $("stop").disabled = !busy;
  $("send").disabled = busy;
  $("clear").disabled = busy;
  $("blind").disabled = busy;
  for (const button of document.querySelectorAll(".edit")) button.disabled = busy;
  if (!busy) tell("All panes have answered.");
}
