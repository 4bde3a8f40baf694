for (const box of document.querySelectorAll("input[type=checkbox]")) {
  box.addEventListener("change", () => {
    for (const article of document.querySelectorAll(`article[data-outcome="${box.value}"]`)) {
      article.hidden = !box.checked;
    }
  });
}
