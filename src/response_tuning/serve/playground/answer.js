"use strict";
// One answer: its text as it comes, who wrote it and how, and what can be done with it.
import { getText } from "/api.js";
import { copy, h, short, tell } from "/dom.js";
import { said, state } from "/state.js";
import { tokenView } from "/tokens.js";

const LETTERS = "ABCDE";

export function answerCard(round, slot, index, again) {
  const hidden = round.blind && !round.revealed;
  const name = hidden ? `Answer ${LETTERS[index]}` : slot.pane;
  const text = h("div", { class: "text", dir: "auto" });
  text.textContent = said(slot) ?? slot.text;
  const facts = h("p", { class: "facts" });
  const foot = h("p", { class: "foot" });
  const more = h("div");
  const card = h(
    "section",
    { class: "card answer", "data-pane": hidden ? null : slot.pane, "aria-label": name, "aria-busy": String(slot.status === "streaming") },
    h("h3", {}, name),
    facts,
    text,
    foot,
    slot.status !== "streaming" && !hidden && actions({ round, slot, text, more, again }),
    slot.status === "streaming" && h("div", { class: "actions" }, stopButton(slot, name)),
    more,
  );
  const show = () => {
    if (!hidden) showFacts(facts, slot);
    showEnd(foot, slot, hidden);
  };
  // While an answer streams, its text grows and nothing else is laid out.
  slot.changed = (event) => {
    if (event.type === "text") text.append(event.text);
    else show();
  };
  show();
  return card;
}

const stopButton = (slot, name) =>
  h("button", { type: "button", "aria-label": `Stop ${name}`, onclick: () => slot.controller?.abort() }, "Stop");

function showFacts(facts, slot) {
  const { start, answer } = slot;
  if (!start) return;
  const adapter = { on: ", adapter on", off: ", adapter off", none: "" }[start.adapter];
  facts.replaceChildren(
    h("code", { class: "model", title: start.model }, short(start.model)),
    ` under template ${start.template_name}`,
    h("code", { class: "template", title: start.template }, ` ${start.template.slice(0, 8)}`),
    adapter,
  );
  if (answer && answer.answered_by !== answer.model && answer.ids.length) {
    const other = answer.answered_by ? short(answer.answered_by) : "no model that is open";
    facts.append(h("strong", { class: "alarm", role: "alert" }, ` Another model answered: ${other}`));
  }
}

const REASONS = { stop: "stopped by itself", length: "did not stop", filtered: "filtered", other: "ended" };

function showEnd(foot, slot, hidden) {
  const { answer } = slot;
  if (slot.status === "error") foot.replaceChildren(h("span", { class: "alarm", role: "alert" }, slot.error));
  if (!answer || hidden) return;
  const bad = answer.finish_reason === "length";
  const reason = answer.detail || REASONS[answer.finish_reason];
  const tokens = answer.tokens === null ? "" : `, ${answer.tokens} tokens`;
  const first = answer.first_text_s === null ? "" : `, first text after ${answer.first_text_s.toFixed(2)} s`;
  foot.replaceChildren(
    h("span", { class: bad ? "alarm finish" : "finish" }, reason),
    `${tokens} in ${answer.seconds.toFixed(2)} s${first}`,
    slot.edited === null ? "" : ", edited by you",
  );
}

function actions({ round, slot, text, more, again }) {
  const { answer, start } = slot;
  const busy = state.rounds.some((one) => one.slots.some((other) => other.controller));
  const button = (label, onclick, how = {}) =>
    h("button", { type: "button", "aria-label": `${label}: ${slot.pane}`, onclick, ...how }, label);
  const toggle = (label, make) =>
    button(label, async (event) => {
      const open = event.currentTarget.getAttribute("aria-expanded") === "true";
      for (const other of event.currentTarget.parentElement.querySelectorAll("[aria-expanded]")) other.setAttribute("aria-expanded", "false");
      const pressed = event.currentTarget;
      more.replaceChildren();
      if (open) return;
      try {
        more.replaceChildren(await make());
        pressed.setAttribute("aria-expanded", "true");
      } catch (error) {
        tell(error.message);
      }
    }, { "aria-expanded": "false" });
  return h(
    "div",
    { class: "actions" },
    button("Regenerate", () => again(round, slot), { disabled: busy }),
    answer && button("Edit", () => edit(slot, text)),
    start?.stretches?.length > 0 && toggle("Prompt as sent", () => promptView(slot)),
    answer?.ids.length > 0 && toggle("Tokens", () => tokenView(answer, (ids) => again(round, slot, { begin_ids: ids }))),
    answer && button("Copy as code", async () => copy(await getText(`/answers/${answer.id}/code`), "the code")),
  );
}

// An edited answer is what the rounds after it are asked with.
function edit(slot, text) {
  const box = h("textarea", { rows: 5, "aria-label": `Edited answer of ${slot.pane}` });
  box.value = said(slot);
  const done = (save) => {
    if (save) slot.edited = box.value === slot.answer.response ? null : box.value;
    text.textContent = said(slot);
    box.replaceWith(text);
    buttons.remove();
    slot.changed?.({ type: "edited" });
  };
  const buttons = h(
    "div",
    { class: "row" },
    h("button", { type: "button", class: "primary", onclick: () => done(true) }, "Save"),
    h("button", { type: "button", onclick: () => done(false) }, "Cancel"),
  );
  text.replaceWith(box);
  box.after(buttons);
  box.focus();
}

// What was sent, token for token of the template; what training gives loss is marked.
function promptView(slot) {
  const view = h("pre", { tabindex: "0", role: "region", "aria-label": `Prompt as sent to ${slot.pane}` });
  for (const part of slot.start.stretches) view.append(h("span", { class: part.supervised ? "loss" : "free" }, part.text));
  if (slot.answer) view.append(h("span", { class: "loss" }, slot.answer.response));
  return h(
    "div",
    {},
    h("p", { class: "facts" }, `${slot.start.prompt_tokens} tokens. `, h("span", { class: "loss" }, "Green"),
      " is what tuning trains a model to write, grey what it only reads; response tuning leaves the user's turns out."),
    view,
  );
}
