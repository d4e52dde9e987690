// The review page's keys: j and k go to the next and previous file, n to the next comment, a to the approve button
// (a second a, or Enter, presses it). A click on a line's number opens the form in place. Without this file the same
// is done by links and forms.
(() => {
  const page = document.querySelector("[data-review]");
  if (!page) return;

  const go = (selector, step) => {
    const all = [...page.querySelectorAll(selector)].filter((item) => item.getClientRects().length);
    if (!all.length) return;
    const edge = 8;
    const tops = all.map((item) => item.getBoundingClientRect().top);
    let next = step > 0 ? tops.findIndex((top) => top > edge) : tops.findLastIndex((top) => top < -edge);
    const at = all.indexOf(document.activeElement);
    if (at >= 0) next = at + step;
    if (next < 0 || next >= all.length) next = step > 0 ? 0 : all.length - 1;
    all[next].scrollIntoView({ block: "start" });
    all[next].focus({ preventScroll: true });
  };

  const approve = () => {
    const button = page.querySelector("[data-approve] button");
    if (!button) return;
    if (document.activeElement === button) button.click();
    else button.focus();
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    if (event.key === "j") go("[data-file]", 1);
    else if (event.key === "k") go("[data-file]", -1);
    else if (event.key === "n") go("[data-comment]", 1);
    else if (event.key === "a") approve();
    else return;
    event.preventDefault();
  });

  // one click does one thing
  page.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => {
    for (const form of page.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });

  // the form for a comment, fetched from the page that the link leads to, and put below its line
  page.addEventListener("click", async (event) => {
    const cancel = event.target.closest("[data-cancel]");
    if (cancel && cancel.closest("[data-fetched]")) {
      event.preventDefault();
      cancel.closest("[data-fetched]").remove();
      return;
    }
    const link = event.target.closest("td.n a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    try {
      const answer = await fetch(link.href);
      const fetched = new DOMParser().parseFromString(await answer.text(), "text/html");
      const form = fetched.querySelector("#at");
      if (!answer.ok || !form) throw new Error("no form");
      for (const old of page.querySelectorAll("[data-fetched]")) old.remove();
      const row = document.createElement("tr");
      row.className = "rv-between";
      row.dataset.fetched = "yes";
      const cell = row.insertCell();
      cell.colSpan = 4;
      cell.append(document.adoptNode(form));
      link.closest("tr").after(row);
      (cell.querySelector("textarea") || cell.querySelector("a")).focus();
    } catch (error) {
      location.href = link.href;
    }
  });

  const field = page.querySelector("#at textarea");
  if (field) field.focus();

  // how it stands, what one may do, gates and verdicts, kept up to date; the diff stays as it was read, and a line says
  // when there is more to see. What is half typed stays, and an act is always of the head that was shown.
  const standing = document.getElementById("standing");
  const follow = page.dataset.follow;
  let source = null;
  let busy = false;
  let again = false;

  const look = async () => {
    again = busy;
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(page.dataset.here, { headers: { "X-Gastown-Live": "1" }, redirect: "manual" });
      const fresh = new DOMParser().parseFromString(answer.ok ? await answer.text() : "", "text/html");
      const mark = fresh.getElementById("standing")?.dataset.mark;
      if (mark) {
        document.getElementById("changed").hidden = mark === standing.dataset.mark;
        fresh.getElementById("standing").dataset.mark = standing.dataset.mark;
        for (const part of ["standing", "acts", "judged"]) {
          globalThis.gastownMorph(document.getElementById(part), fresh.getElementById(part));
        }
        for (const head of page.querySelectorAll("#acts input[name=head]")) head.value = page.dataset.head;
      }
    } catch (error) {
      // the server is away: the next event, or a reload, shows it
    }
    setTimeout(() => {
      busy = false;
      if (again) look();
    }, 250);
  };

  const state = document.getElementById("live-state");
  const say = (kind, text) => {
    if (!state) return;
    state.className = `live ${kind}`;
    state.textContent = text;
  };

  const watch = () => {
    if (source) source.close();
    source = null;
    if (document.hidden || !follow || !standing) return;
    source = new EventSource(follow);
    source.onopen = () => say("on", "Live");
    source.onmessage = look;
    source.onerror = () => (source && source.readyState === EventSource.CLOSED ? say("", "") : say("off", "Reconnecting"));
  };

  document.addEventListener("visibilitychange", watch);
  window.addEventListener("pagehide", () => source && source.close());
  watch();
})();
