"use strict";
// Blind votes: the order is drawn, names are hidden until the choice, and the server keeps it.
import { postJson } from "/api.js";
import { h, tell } from "/dom.js";

const LETTERS = "ABCDE";

export function shuffled(slots) {
  const left = [...slots];
  const order = [];
  while (left.length) {
    // Unbiased: of 2 ** 32 numbers, those above the last multiple of the length are drawn again.
    const limit = 2 ** 32 - (2 ** 32 % left.length);
    let [drawn] = crypto.getRandomValues(new Uint32Array(1));
    while (drawn >= limit) [drawn] = crypto.getRandomValues(new Uint32Array(1));
    order.push(...left.splice(drawn % left.length, 1));
  }
  return order;
}

// The choices of a blind round whose answers are all there.
export function ballot(round, refresh) {
  const done = round.slots.length > 1 && round.slots.every((slot) => slot.answer);
  if (!round.blind || round.revealed || !done) return null;
  const vote = async (choice) => {
    try {
      const answers = round.slots.map((slot) => slot.answer.id);
      const { panes } = await postJson("/votes", { answers, choice, blind: true });
      round.revealed = true;
      tell(`Saved. ${panes.map((pane, at) => `${LETTERS[at]} is ${pane}`).join(", ")}.`);
      refresh();
    } catch (error) {
      tell(error.message);
    }
  };
  const button = (label, key, choice) =>
    h("button", { type: "button", "data-key": key, onclick: () => vote(choice) }, `${label} `, h("kbd", {}, key));
  const several = round.slots.length > 2;
  return h(
    "div",
    { class: "ballot", role: "group", "aria-label": "Which answer is best?" },
    "Which answer is best?",
    ...round.slots.map((_, at) => button(`Answer ${LETTERS[at]}`, LETTERS[at].toLowerCase(), at)),
    button("Tie", "t", "tie"),
    button(several ? "All bad" : "Both bad", "x", "both bad"),
  );
}
