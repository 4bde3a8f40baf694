// Shows the prompts that pass the filters, a page at a time. All text goes through textContent, so
// that nothing a model said becomes part of the page. The filters live in the address' fragment.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
const PAGE = 10;
const FINISH = { s: "(stopped)", l: "hit the limit", f: "filtered", o: "ended otherwise", e: "error", "-": "no answer" };
const FIELDS = ["benchmark", "group", "text", "a", "b", "by", "order"];
const ORDERS = [["", "disagreement"], ["file", "the file"]];
const MOST_CARDS = 6; // with more answers, those of the variants that are not compared are folded
const MOST_WORDS = 400; // longer answers are compared as wholes
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
  fill("order", ORDERS, wanted.order);
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

// The variants whose answers decide the order: those that are chosen, or those that are compared.
function deciding() {
  const chosen = ["a", "b"].map((name) => form.elements[name].value).filter(Boolean);
  return (chosen.length === 2 ? chosen : data.compared).map((name) => data.variants.indexOf(name));
}

// Pairs with unlike scores, over all metrics, and then different texts; 0 where all agree.
function disagreement(item, places) {
  const answered = places.filter((place) => item.which[place] >= 0);
  const metrics = data.benchmarks[item.benchmark].metrics;
  const pairs = metrics.map((_, index) => {
    const scores = answered.map((place) => item.marks[place][index + 1]);
    return scores.filter((score) => score === "0").length * scores.filter((score) => score === "1").length;
  });
  const texts = unique(answered.map((place) => item.which[place])).length;
  return 100 * pairs.reduce((sum, count) => sum + count, 0) + Math.max(0, texts - 1);
}

function matches() {
  const [benchmark, group, text, a, b, by, order] = FIELDS.map((name) => form.elements[name].value);
  const [first, second] = [a, b].map((name) => data.variants.indexOf(name));
  const words = text.toLowerCase();
  const found = data.items.filter((item) =>
    (!benchmark || data.benchmarks[item.benchmark].name === benchmark) &&
    (!group || item.group === group) &&
    (!words || [item.id, ...turns(item.prompt).flat(), ...item.texts]
      .some((part) => part.toLowerCase().includes(words))) &&
    (first < 0 || second < 0 || differ(item, first, second, by)));
  if (order) return found;
  const places = deciding();
  const ranks = new Map(found.map((item) => [item, disagreement(item, places)]));
  return found.sort((one, other) => ranks.get(other) - ranks.get(one)); // stable: then the file's order
}

// The words of a text, and which of them another text has in this order (longest common sequence).
function compared(text, other) {
  const [words, others] = [text, other].map((one) => one.match(/\s*\S+/g) ?? []);
  if (Math.max(words.length, others.length) > MOST_WORDS) return words.map((word) => [word, false]);
  const [keys, known] = [words, others].map((list) => list.map((word) => word.trim()));
  const best = Array.from({ length: keys.length + 1 }, () => new Uint16Array(known.length + 1));
  for (let i = keys.length - 1; i >= 0; i--) {
    for (let j = known.length - 1; j >= 0; j--) {
      best[i][j] = keys[i] === known[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  let j = 0;
  return words.map((word, i) => {
    while (j < known.length && keys[i] !== known[j] && best[i][j + 1] >= best[i + 1][j]) j++;
    const same = j < known.length && keys[i] === known[j];
    if (same) j++;
    return [word, !same];
  });
}

// An answer, with the words marked that the first answer beside it does not have.
function showText(text, reference) {
  const shown = element("pre", text ? "" : "quiet", text ? undefined : "(empty)");
  shown.dir = "auto";
  if (!text) return shown;
  if (reference === undefined || reference === text) {
    shown.textContent = text;
    return shown;
  }
  for (const [word, differs] of compared(text, reference)) {
    const bare = word.trimStart();
    shown.append(word.slice(0, word.length - bare.length), differs ? element("mark", "", bare) : bare);
  }
  return shown;
}

// A tick marks what one wants, a cross its opposite, and neither a metric that is neither.
function showMark(metric, score) {
  const text = `${metric.replaceAll("_", " ")}: ${score === "1" ? "yes" : "no"}`;
  const meaning = data.meaning[metric];
  if (!meaning) return element("span", "mark", text);
  const good = (score === "1") === (meaning > 0);
  return element("span", good ? "mark yes" : "mark no", `${good ? "\u2713" : "\u2717"} ${text}`);
}

function showPrompt(prompt) {
  return turns(prompt).map(([role, text]) => element("pre", "prompt", role ? `${role}: ${text}` : text));
}

function showAnswer(item, place, chosen, reference) {
  const name = data.variants[place];
  const [finish, ...scores] = item.marks[place];
  const marks = data.benchmarks[item.benchmark].metrics
    .map((metric, index) => [metric, scores[index]])
    .filter(([metric, score]) => score !== "-" && metric !== "stopped")
    .map(([metric, score]) => showMark(metric, score));
  const text = item.texts[item.which[place]];
  const said = finish === "-" ? [] : [showText(text, reference)];
  const ending = element("span", finish === "s" ? "mark" : "mark cut", FINISH[finish]);
  const reason = item.reasons?.[item.why[place]];
  const why = reason === undefined ? [] : [element("details", "", undefined,
    [element("summary", "", "why"), element("pre", "", reason)])];
  const differs = reference !== undefined && text !== reference;
  const kind = ["card", chosen.includes(name) && "chosen", differs && "differs"].filter(Boolean).join(" ");
  return element("div", kind, undefined, [element("b", "", name), ...said, ending, ...marks, ...why]);
}

function showItem(item) {
  const chosen = [form.elements.a.value, form.elements.b.value];
  const where = [data.benchmarks[item.benchmark].name, item.group, item.id].filter(Boolean).join(" \u00b7 ");
  const first = deciding();
  const places = unique([...first, ...data.variants.keys()]).filter((place) => place >= 0 && item.which[place] >= 0);
  const reference = item.texts[item.which[places[0]]];
  const cards = places.map((place, index) =>
    showAnswer(item, place, chosen, index ? reference : undefined));
  const shown = cards.length > MOST_CARDS ? first.length : cards.length;
  const parts = [element("small", "", where), ...showPrompt(item.prompt),
    element("div", "cards", undefined, cards.slice(0, shown))];
  if (cards.length > shown) {
    parts.push(element("details", "", undefined, [
      element("summary", "", `${cards.length - shown} further answers`),
      element("div", "cards", undefined, cards.slice(shown))]));
  }
  return element("article", "", undefined, parts);
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
