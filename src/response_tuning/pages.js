// What all pages of one file share: tables can be copied, and long texts are folded on a phone.
const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
  "<": "$<$", ">": "$>$", "\u2212": "$-$", "\u221e": "$\\infty$", "\u2248": "$\\approx$",
  "\u2249": "$\\not\\approx$" };

function tex(text) {
  return text.replace(/[&%$#_{}]|[\\~^<>\u2212\u221e\u2248\u2249]/g, (sign) => TEX[sign] ?? `\\${sign}`);
}

function markdown(text) {
  return text.replace(/[\\|]/g, "\\$&").replace(/</g, "&lt;");
}

// The text of a cell on one line; small print is set apart by a space.
function cell(node) {
  const parts = [];
  const walk = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) parts.push(walk.currentNode.textContent);
  return parts.join(" ").replace(/\s+/g, " ").trim();
}

function cells(table) {
  return [...table.rows].map((row) => [...row.cells].flatMap((node) =>
    [cell(node), ...Array(node.colSpan - 1).fill("")]));
}

function asMarkdown(table) {
  const [head, ...rows] = cells(table).map((row) => `| ${row.map(markdown).join(" | ")} |`);
  const columns = [...table.rows[0].cells].map((node) => node.classList.contains("text") ||
    node.classList.contains("name") ? "---" : "---:");
  return [head, `|${columns.join("|")}|`, ...rows, ""].join("\n");
}

function asLatex(table) {
  const [head, ...rows] = cells(table).map((row) => `  ${row.map(tex).join(" & ")} \\\\`);
  const columns = [...table.rows[0].cells].map((node) => node.classList.contains("text") ||
    node.classList.contains("name") ? "l" : "r").join("");
  return [`\\begin{tabular}{${columns}}`, "  \\toprule", head, "  \\midrule", ...rows,
    "  \\bottomrule", "\\end{tabular}", ""].join("\n");
}

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch { // a browser that allows no copying shows the text to be copied by hand
    const area = document.createElement("textarea");
    area.value = text;
    area.rows = 6;
    button.parentElement.append(area);
    area.select();
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

for (const table of document.querySelectorAll("table[data-copy]")) {
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.append("Copy as ");
  for (const [name, write] of [["Markdown", asMarkdown], ["LaTeX", asLatex]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => copy(button, write(table)));
    tools.append(button, " ");
  }
  (table.closest(".wide") ?? table).after(tools);
}

if (matchMedia("(max-width: 40rem)").matches) {
  for (const long of document.querySelectorAll("details.long")) long.open = false;
}
