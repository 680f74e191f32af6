/* Runs in the head, before any other script: says that there are scripts, and window.jhdata. */
(function () {
  "use strict";
  document.documentElement.classList.add("js");
  window.jhdata = JSON.parse(document.getElementById("jhdata").textContent);
})();
