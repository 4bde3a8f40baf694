// Outcomes are shown and hidden, and rewrites accepted and rejected; decisions leave as a file.
for (const box of document.querySelectorAll("input[type=checkbox]")) {
  box.addEventListener("change", () => {
    for (const article of document.querySelectorAll(`article[data-outcome="${box.value}"]`)) {
      article.hidden = !box.checked;
    }
  });
}

const saving = document.getElementById("saving");
const changed = new Map(); // input's name -> the decision that was made on this page
let unsaved = false;

function count() {
  const rejected = document.querySelectorAll("input[value=reject]:checked").length;
  document.getElementById("decided").textContent =
    `${changed.size} decided here, ${rejected} rejected in all${unsaved ? "; not saved yet" : ""}`;
}

document.addEventListener("change", ({ target }) => {
  if (target.type !== "radio") return;
  const { row, turn, key } = target.closest("article").dataset;
  changed.set(target.name, { row: Number(row), turn: Number(turn), key, accept: target.value === "accept" });
  unsaved = true;
  count();
});

document.getElementById("save")?.addEventListener("click", () => {
  const lines = [...changed.values()].map((one) => `${JSON.stringify(one)}\n`).join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines], { type: "application/jsonl" }));
  link.download = "decisions.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
  unsaved = false;
  count();
});

addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});
if (saving) {
  saving.hidden = false;
  count();
}
