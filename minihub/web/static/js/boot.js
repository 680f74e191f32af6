/* Runs in the head, before anything is painted: the theme, and window.jhdata. */
(function () {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("minihub-theme");
    if (theme === "light" || theme === "dark") {
      root.dataset.theme = theme;
    }
  } catch {
    // Storage may be forbidden; the system's theme it is.
  }
  window.jhdata = JSON.parse(document.getElementById("jhdata").textContent);
})();
