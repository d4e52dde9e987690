// Pages that ask for it refresh their <main> every three seconds while they are looked at. Without this, reload.
(() => {
  const main = document.querySelector("main[data-live]");
  if (!main) return;
  let busy = false;
  setInterval(async () => {
    if (busy || document.hidden || main.contains(document.activeElement)) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { "X-Requested-With": "live" } });
      if (answer.ok && !answer.redirected) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector("main");
        if (fresh && fresh.innerHTML !== main.innerHTML) main.innerHTML = fresh.innerHTML;
      }
    } catch (error) {
      // the server is away: keep what is shown
    } finally {
      busy = false;
    }
  }, 3000);
})();
