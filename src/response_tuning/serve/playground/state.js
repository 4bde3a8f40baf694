"use strict";
// What the page holds: panes, and rounds of one question with an answer of each pane.

export const state = {
  panes: [], // {name, about, template, adapter}
  rounds: [], // {question, slots: [slot], revealed, voted}
  sampling: {},
  system: "",
  beginText: "",
  blind: false,
  maxPanes: 5,
};

// A slot is one pane's place in a round.
export function newSlot(pane) {
  return { pane, status: "waiting", start: null, text: "", answer: null, error: "", edited: null, controller: null };
}

// What a pane's answer is to the rounds after it.
export const said = (slot) => slot.edited ?? slot.answer?.response ?? null;

export const isBusy = () => state.rounds.some((round) => round.slots.some((slot) => slot.controller));

// The conversation that a pane is asked in a round. Rounds before one that it did not answer are left
// out: a template cannot render two questions in a row.
export function conversation(pane, at) {
  let turns = [];
  for (const round of state.rounds.slice(0, at)) {
    const slot = round.slots.find((one) => one.pane === pane);
    const reply = slot ? said(slot) : null;
    if (reply === null) turns = [];
    else turns.push({ role: "user", content: round.question }, { role: "assistant", content: reply });
  }
  turns.push({ role: "user", content: state.rounds[at].question });
  return state.system ? [{ role: "system", content: state.system }, ...turns] : turns;
}

export const answerIds = () =>
  state.rounds.flatMap((round) => round.slots.map((slot) => slot.answer?.id).filter(Boolean));

// The address that shows this conversation again, in the playground that keeps its answers.
export function permalink() {
  const address = new URL(location.href);
  address.hash = answerIds().join(",");
  return address.href;
}

// Rounds from kept answers: the number of an answer's questions says which round it belongs to.
export function roundsOf(answers) {
  const rounds = [];
  for (const answer of answers) {
    const questions = answer.prompt.filter((turn) => turn.role === "user");
    const round = (rounds[questions.length - 1] ??= { question: questions.at(-1).content, slots: [] });
    const slot = { ...newSlot(answer.pane), status: "done", answer, text: answer.response };
    slot.start = { ...answer, stretches: null };
    round.slots.push(slot);
  }
  return rounds.filter(Boolean);
}
