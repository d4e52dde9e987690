// The console's part of Alpine under a Content-Security-Policy without 'unsafe-eval': see README.md.
"use strict";

document.addEventListener("alpine:init", () => {
  // unfold calls its components as globals, which the CSP build does not reach: they are made known by name.
  Alpine.data("theme", theme);
  Alpine.data("searchForm", searchForm);

  Alpine.data("consoleBody", () => ({
    activeTab: "",
    sidebarMobileOpen: false,
    sidebarDesktopOpen: localStorage.getItem("sidebarDesktopOpen") !== "0",
    // the change form's x-bind:action asks for window.location
    window: { location: { pathname: window.location.pathname, search: window.location.search } },
    init() {
      this.activeTab = getCurrentTab() || document.body.dataset.primaryTab;
      this.$watch("sidebarDesktopOpen", (open) => localStorage.setItem("sidebarDesktopOpen", open ? "1" : "0"));
    },
  }));
});

// While the page is cloaked nothing can have the focus.
document.addEventListener("alpine:initialized", () => {
  requestAnimationFrame(() => document.querySelector("[autofocus]")?.focus());
});
