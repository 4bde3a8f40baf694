"use strict";
// Shows the prompts that pass the filters, a page at a time. All text goes through textContent, so
// that nothing a model said becomes part of the page. The filters live in the address' fragment.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
const PAGE = 10;
const FINISH = { s: "(stopped)", l: "hit the limit", f: "filtered", o: "ended otherwise", e: "error", "-": "no answer" };
const FIELDS = ["benchmark", "group", "text", "a", "b", "by"];
let page = 0;

function element(tag, className, text, children = []) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

function fill(name, options, chosen) {
  form.elements[name].replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  form.elements[name].value = options.some(([value]) => value === chosen) ? chosen : options[0][0];
}

function unique(values) {
  return [...new Set(values)];
}

// The lists that depend on nothing, and the groups of the benchmark that is chosen.
function fillAll(wanted) {
  const variants = [["", "any"], ...data.variants.map((name) => [name, name])];
  const metrics = unique(data.benchmarks.flatMap((benchmark) => benchmark.metrics));
  fill("benchmark", [["", "all"], ...data.benchmarks.map(({ name }) => [name, name])], wanted.benchmark);
  fill("a", variants, wanted.a);
  fill("b", variants, wanted.b);
  fill("by", [...metrics, "text"].map((name) => [name, name === "text" ? "answer text" : name]), wanted.by);
  form.elements.text.value = wanted.text || "";
  fillGroups(wanted.group);
}

function fillGroups(chosen) {
  const name = form.elements.benchmark.value;
  const inside = data.items.filter((item) => !name || data.benchmarks[item.benchmark].name === name);
  const groups = unique(inside.map((item) => item.group)).filter(Boolean).sort();
  fill("group", [["", "all"], ...groups.map((group) => [group, group])], chosen);
}

// A prompt is the text of one user, or a list of [role, text].
function turns(prompt) {
  return typeof prompt === "string" ? [["", prompt]] : prompt;
}

function differ(item, a, b, by) {
  if (by === "text") return item.which[a] !== item.which[b];
  const place = data.benchmarks[item.benchmark].metrics.indexOf(by) + 1; // 0 is how it finished
  const one = item.marks[a][place], other = item.marks[b][place];
  return place > 0 && one !== "-" && other !== "-" && one !== other;
}

function matches() {
  const [benchmark, group, text, a, b, by] = FIELDS.map((name) => form.elements[name].value);
  const [first, second] = [a, b].map((name) => data.variants.indexOf(name));
  const words = text.toLowerCase();
  return data.items.filter((item) =>
    (!benchmark || data.benchmarks[item.benchmark].name === benchmark) &&
    (!group || item.group === group) &&
    (!words || [item.id, ...turns(item.prompt).flat(), ...item.texts]
      .some((part) => part.toLowerCase().includes(words))) &&
    (first < 0 || second < 0 || differ(item, first, second, by)));
}

function showPrompt(prompt) {
  return turns(prompt).map(([role, text]) => element("pre", "prompt", role ? `${role}: ${text}` : text));
}

function showAnswer(item, place, chosen) {
  const name = data.variants[place];
  const [finish, ...scores] = item.marks[place];
  const marks = data.benchmarks[item.benchmark].metrics
    .map((metric, index) => [metric, scores[index]])
    .filter(([metric, score]) => score !== "-" && metric !== "stopped")
    .map(([metric, score]) => score === "1"
      ? element("span", "mark yes", `\u2713 ${metric}`) : element("span", "mark", `\u2717 ${metric}`));
  const text = item.texts[item.which[place]];
  const said = finish === "-" ? [] : [text ? element("pre", "", text) : element("pre", "quiet", "(empty)")];
  if (said.length) said[0].dir = "auto";
  const ending = element("span", finish === "s" ? "mark" : "mark cut", FINISH[finish]);
  return element("div", chosen.includes(name) ? "answer chosen" : "answer", undefined,
    [element("b", "", name), ...said, ending, ...marks]);
}

function showItem(item) {
  const chosen = [form.elements.a.value, form.elements.b.value];
  const where = [data.benchmarks[item.benchmark].name, item.group, item.id].filter(Boolean).join(" \u00b7 ");
  const answers = data.variants.map((_, place) => showAnswer(item, place, chosen));
  return element("article", "", undefined, [
    element("small", "", where), ...showPrompt(item.prompt), element("div", "answers", undefined, answers)]);
}

function show() {
  const found = matches();
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const here = found.slice(page * PAGE, (page + 1) * PAGE);
  document.getElementById("items").replaceChildren(...here.map(showItem));
  document.getElementById("count").textContent =
    `${found.length} of ${data.items.length} prompts, page ${page + 1} of ${pages}`;
  document.getElementById("back").disabled = page === 0;
  document.getElementById("next").disabled = page === pages - 1;
}

function remember() {
  const state = new URLSearchParams();
  for (const name of FIELDS) if (form.elements[name].value) state.set(name, form.elements[name].value);
  if (page) state.set("page", page + 1);
  history.replaceState(null, "", `#${state}`);
}

function recall() {
  const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  fillAll(state);
  page = (Number.parseInt(state.page, 10) || 1) - 1;
  show();
}

function turn(step) {
  page += step;
  show();
  remember();
  document.getElementById("prompts").scrollIntoView();
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => {
  if (event.target.name === "benchmark") fillGroups(form.elements.group.value);
  page = 0;
  show();
  remember();
});
document.getElementById("back").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
window.addEventListener("hashchange", recall);
recall();
