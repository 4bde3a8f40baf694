"use strict";
// Keyboard shortcuts: a key presses what the page names it for, and Enter saves.
const form = document.querySelector("form");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing) return;
  if (event.target.closest("textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "Enter") {
    if (!event.target.closest("a, button, input, summary")) form?.requestSubmit(); // they know Enter
    return;
  }
  const named = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!named) return;
  event.preventDefault();
  if (named.matches("textarea")) named.focus();
  else named.click();
});

// After a click of the mouse, the arrow keys shall scroll, not change what was chosen.
document.addEventListener("click", (event) => {
  if (event.detail > 0 && event.target.matches("input[type=radio]")) event.target.blur();
});
