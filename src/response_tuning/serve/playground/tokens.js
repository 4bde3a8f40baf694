"use strict";
// The tokens of an answer: how surprising each was, what else it could have been, and another way on.
import { postJson } from "/api.js";
import { h } from "/dom.js";

const BITS = [1, 2, 4, 7]; // bounds of the shades

const bits = (probability) => -Math.log2(probability);
const shade = (token) => BITS.filter((bound) => bits(token.probability) >= bound).length;
const percent = (value) => (value >= 0.001 ? `${(100 * value).toFixed(1)} %` : "< 0.1 %");
// White space that would not be seen alone.
const visible = (text) => text.replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5").replaceAll(" ", "\u2423") || "\u2205";

export async function tokenView(answer, goOn) {
  const { tokens } = await postJson(`/answers/${answer.id}/tokens`);
  const reading = h("div", { class: "reading", role: "status" }, "Choose a token to see what else it could have been.");
  const buttons = tokens.map((token, at) => {
    const press = (event) => {
      for (const other of buttons) other.setAttribute("aria-expanded", "false");
      event.currentTarget.setAttribute("aria-expanded", "true");
      reading.replaceChildren(...readingOf(token, at, answer, goOn));
    };
    return h("button", {
      type: "button", class: `s${shade(token)}`, tabindex: at ? "-1" : "0", onclick: press, "aria-expanded": "false",
      title: `${bits(token.probability).toFixed(1)} bits`, "aria-label": `${token.text.trim() ? token.text : visible(token.text)}, ${percent(token.probability)}`,
    }, token.text || "\u00b7");
  });
  const row = h("div", { class: "tokens", role: "toolbar", "aria-label": "Tokens of the answer", onkeydown: (event) => move(event, buttons) }, ...buttons);
  const sum = tokens.reduce((total, token) => total + bits(token.probability), 0);
  return h(
    "div",
    {},
    h("p", { class: "facts" }, `${tokens.length} tokens, ${(sum / tokens.length).toFixed(2)} bits each on average. `,
      "The darker, the more surprising to the model itself, at temperature 1. Arrow keys move."),
    row,
    reading,
  );
}

// One stop of the Tab key; arrow keys inside.
function move(event, buttons) {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -buttons.length, End: buttons.length }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = buttons.indexOf(document.activeElement);
  const next = buttons[Math.max(0, Math.min(buttons.length - 1, at + step))];
  for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
  next.focus();
}

function readingOf(token, at, answer, goOn) {
  const row = (other) =>
    h(
      "tr",
      {},
      h("td", {}, h("code", {}, visible(other.text))),
      h("td", {}, percent(other.probability)),
      h("td", {}, bar(other.probability)),
      h("td", {}, other.id === token.id ? "taken" : h("button", {
        type: "button", "aria-label": `Continue from ${visible(other.text)}`,
        onclick: () => goOn([...answer.ids.slice(0, at), other.id]),
      }, "Continue")),
    );
  return [
    h("p", { class: "facts" }, `Token ${at + 1}: `, h("code", {}, visible(token.text)),
      `, id ${token.id}, ${percent(token.probability)}, ${bits(token.probability).toFixed(1)} bits, rank ${token.rank}`),
    h("table", {}, h("tbody", {}, ...token.alternatives.map(row))),
  ];
}

function bar(share) {
  const element = h("div", { class: "bar" });
  element.style.width = `${(100 * share).toFixed(1)}%`;
  return element;
}
