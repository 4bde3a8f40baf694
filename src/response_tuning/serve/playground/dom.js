"use strict";
// Elements from plain values. A string becomes text, so that no text of a model is ever markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

// Shown at the foot of the page, and read out by a screen reader.
export function tell(sentence) {
  $("status").textContent = sentence;
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`Copied ${what}.`);
  } catch {
    tell(`The browser does not allow copying: ${text}`);
  }
}

export const short = (identity) => identity.replaceAll(/([0-9a-f]{8})[0-9a-f]{8,}/g, "$1");
