// What is better with a little JavaScript; without any, everything works. Keys, and pages that follow a job at work.
"use strict";

const PAGES = { o: "/", g: "/groups", s: "/search", j: "/jobs", a: "/audit", p: "/pipeline" };
let waitsForPage = false;
let here = -1;

function rows() {
  return [...document.querySelectorAll(".rows tbody tr")];
}

function goTo(number) {
  const all = rows();
  if (all.length === 0) return;
  all.forEach((row) => row.classList.remove("here"));
  here = Math.max(0, Math.min(all.length - 1, number));
  all[here].classList.add("here");
  all[here].scrollIntoView({ block: "nearest" });
  const link = all[here].querySelector("a");
  if (link) link.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape" && typing) typing.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (waitsForPage) {
    waitsForPage = false;
    if (PAGES[event.key]) location.assign(PAGES[event.key]);
    return;
  }
  if (event.key === "g") waitsForPage = true;
  else if (event.key === "j") goTo(here + 1);
  else if (event.key === "k") goTo(here - 1);
  else if (event.key === "/") {
    event.preventDefault();
    const box = document.querySelector("[data-search]");
    if (box) box.focus();
    else location.assign("/search");
  }
});

// The server renders the page again, and what is live of it takes the place of what was there.
async function refresh(seconds) {
  await new Promise((done) => setTimeout(done, seconds * 1000));
  let next = seconds;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.ok && !answer.redirected) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const old = document.querySelectorAll("[data-live]");
      const parts = fresh.querySelectorAll("[data-live]");
      const busy = document.activeElement && document.activeElement.closest("[data-live]");
      if (!busy) old.forEach((part, number) => parts[number] && part.replaceWith(parts[number]));
      next = Number(fresh.body.dataset.refresh);
    }
  } catch {
    next = Math.min(30, seconds * 2); // the console is away: it is asked less often until it is back
  }
  if (next > 0) refresh(next);
}

const seconds = Number(document.body.dataset.refresh);
if (seconds > 0) refresh(seconds);
