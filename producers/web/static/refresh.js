// Replaces a live <main> with its newest version every second. Without JavaScript, <noscript> reloads the page.
const PERIOD_MS = 1000;

let isFilledIn = false; // replacing a form would discard the input
document.addEventListener("input", () => { isFilledIn = true; });

function isInUse(main) {
  return document.hidden || isFilledIn || main.contains(document.activeElement) || !getSelection().isCollapsed
    || main.querySelector("details[open]");
}

async function refresh() {
  const main = document.querySelector("main[data-live]");
  if (!main) return;
  try {
    if (!isInUse(main)) await replace(main);
  } catch {
    // the server is unreachable: try again in a second
  }
  setTimeout(refresh, PERIOD_MS);
}

async function replace(main) {
  const response = await fetch(location.href);
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!isInUse(main)) main.replaceWith(page.querySelector("main"));
}

setTimeout(refresh, PERIOD_MS);
