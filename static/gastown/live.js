// Keeps <main data-live="…"> up to date: a server-sent event says that something changed, the page's live part is
// fetched again and morphed in place, so that focus, scroll position, open details and half-filled forms stay.
// Without this script every page still works by reload.
(() => {
  "use strict";
  const main = document.querySelector("main[data-live]");
  const state = document.getElementById("live-state");
  const PAUSE = 250; // milliseconds between two fetches
  let source = null;
  let address = "";
  let busy = false;
  let again = false;

  // -- morphing -------------------------------------------------------------------------------------------------

  const atEnd = (part) => part.scrollHeight - part.scrollTop - part.clientHeight < 24;
  const followed = new Set(); // transcripts whose end is looked at

  // What people have opened, typed and looked at is theirs; the rest is what the fresh part says (vendor/idiomorph).
  const OURS = {
    beforeNodeMorphed(old, fresh) {
      if (old.isEqualNode(fresh) || ["INPUT", "TEXTAREA", "SELECT"].includes(old.nodeName)) return false;
      if (old.hasAttribute?.("data-follow") && atEnd(old)) followed.add(old);
      if (!old.hasAttribute?.("data-tail")) return true;
      tail(old, fresh);
      return false;
    },
    afterNodeMorphed(old) {
      if (followed.delete(old)) old.scrollTop = old.scrollHeight;
    },
    beforeAttributeUpdated: (name, node) => name !== "open" || node.nodeName !== "DETAILS",
  };

  function morph(old, fresh) {
    Idiomorph.morph(old, fresh, { callbacks: OURS });
  }

  globalThis.gastownMorph = morph; // for review.js

  // A log is replaced as a whole, and stays at its end when its end was looked at.
  function tail(old, fresh) {
    const [end, top] = [atEnd(old), old.scrollTop];
    old.replaceChildren(...fresh.childNodes);
    old.scrollTop = end ? old.scrollHeight : top;
  }

  // -- fetching ---------------------------------------------------------------------------------------------------

  async function refresh() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    again = false;
    try {
      const answer = await fetch(main.dataset.here || location.href, { headers: { "X-Gastown-Live": "1" }, redirect: "manual" });
      if (answer.ok) swap(await answer.text());
      else if (answer.type === "opaqueredirect" || answer.status === 404) show("off", "Reload this page");
    } catch {
      show("off", "Reconnecting");
    }
    setTimeout(() => {
      busy = false;
      if (again) refresh();
    }, PAUSE);
  }

  function swap(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.querySelector("main");
    if (!fresh) return;
    const focused = document.activeElement;
    const within = main.contains(focused);
    times(fresh);
    const before = [...main.querySelectorAll("[data-steady]")].map((part) => [part.id, part.offsetHeight]);
    morph(main, fresh);
    steady(before);
    if (document.title !== page.title) document.title = page.title;
    if (within && !main.contains(focused)) main.focus({ preventScroll: true });
    if (!main.hasAttribute("data-live")) { // what it shows has come to rest
      close();
      show("", "");
    } else if (source && main.dataset.live !== address) {
      close();
      open();
    }
  }

  // What is busy grows, and does not shrink while it is looked at: what stands below it stays where it is.
  function steady(before) {
    for (const [id, height] of before) {
      const part = document.getElementById(id);
      if (part) part.style.minHeight = `${height}px`;
    }
  }

  addEventListener("resize", () => {
    for (const part of main ? main.querySelectorAll("[data-steady]") : []) part.style.minHeight = "";
  });

  function show(kind, text) {
    if (!state) return;
    state.className = "live " + kind;
    state.textContent = text;
  }

  function open() {
    if (source || document.hidden || !main || !main.hasAttribute("data-live")) return;
    address = main.dataset.live;
    source = new EventSource(address || "/events/");
    source.onopen = () => show("on", "Live");
    source.onmessage = (event) => {
      if (event.data !== main.dataset.version) refresh();
    };
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) show("", "");
      else show("off", "Reconnecting");
    };
  }

  // A hidden page gives its connection back: browsers allow only six to one server.
  function close() {
    if (source) source.close();
    source = null;
  }

  // -- times --------------------------------------------------------------------------------------------------------

  function span(seconds) { // the same as in templatetags/gastown.py
    const s = Math.max(Math.trunc(seconds), 0);
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (s >= size) return `${Math.trunc(s / size)} ${unit}`;
    }
    return `${s} s`;
  }

  const UNITS = [[1, 5, "s", 90], [60, 1, "min", 5400], [3600, 1, "h", 129600], [86400, 1, "days", Infinity]];

  function due(low, high) { // the same as in pace.py
    if (high <= 0) return "later than usual";
    const at = UNITS.findIndex((row) => high < row[3]);
    const down = ([size, step]) => Math.floor(Math.max(low, 0) / size / step) * step;
    const [size, step, unit] = UNITS[at];
    const to = Math.max(Math.ceil(high / size / step) * step, step);
    const start = down(UNITS[at]);
    if (start) return `in ${start} to ${Math.max(to, start + step)} ${unit}`;
    const less = at ? down(UNITS[at - 1]) : 0;
    return less ? `in ${less} ${UNITS[at - 1][2]} to ${to} ${unit}` : `within ${to} ${unit}`;
  }

  function times(root) {
    for (const node of root.querySelectorAll("[data-from]")) {
      const [low, high] = [node.dataset.from, node.dataset.to].map((at) => (Date.parse(at) - Date.now()) / 1000);
      const text = due(low, high);
      if (node.textContent !== text) node.textContent = text;
    }
    for (const node of root.querySelectorAll("[data-time]")) {
      const passed = (Date.now() - Date.parse(node.getAttribute("datetime") || node.dataset.at)) / 1000;
      const text = node.dataset.time === "for" ? span(passed) : passed >= 0 ? `${span(passed)} ago` : `in ${span(-passed)}`;
      if (node.textContent !== text) node.textContent = text;
    }
  }

  times(document);
  setInterval(() => document.hidden || times(document), 1000);
  for (const log of document.querySelectorAll("[data-tail], [data-follow]")) log.scrollTop = log.scrollHeight;
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
})();
