// While <main> is live it is replaced by its newer self every second. Without this, <noscript> reloads the page.
const PERIOD_MS = 1000;

let isFilledIn = false; // a form: the new page would have it empty
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
    // the server is away: the next second tries again
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
