/* The page for the projector counts while people join. Without this it reloads now and then. */
(function () {
  "use strict";
  const STEP_MS = 2500;
  const page = document.getElementById("projector");
  const count = document.getElementById("joined-count");
  const ended = document.getElementById("code-ended");

  async function look() {
    try {
      const answer = await fetch(page.dataset.countUrl, {
        headers: { Accept: "application/json" },
        redirect: "error",
      });
      if (answer.ok) {
        const facts = await answer.json();
        if (count.textContent !== String(facts.used)) {
          count.textContent = facts.used;
        }
        ended.hidden = facts.good;
      }
    } catch {
      // The hub is away for a moment, or the login has ended: the number stays.
    }
    setTimeout(look, STEP_MS);
  }

  setTimeout(look, STEP_MS);
})();
