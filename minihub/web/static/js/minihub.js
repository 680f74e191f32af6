/* Liveness for every page. Nothing here is needed to use the hub. */
(function () {
  "use strict";
  const root = document.documentElement;

  // -- theme: the same choice as the form's, at once and without another page -----------------

  const preferences = document.getElementById("preferences");
  preferences?.addEventListener("submit", (event) => {
    const chosen = event.submitter;
    if (chosen?.name !== "theme") {
      return; // another language is another page
    }
    event.preventDefault();
    const forget = chosen.value === "system";
    if (forget) {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = chosen.value;
    }
    const path = window.jhdata.base_url;
    const secure = window.location.protocol === "https:" ? "; Secure" : "";
    const life = forget ? 0 : 31536000;
    document.cookie =
      `minihub-theme=${chosen.value}; Path=${path}; Max-Age=${life}; SameSite=Lax${secure}`;
    for (const button of document.querySelectorAll('[name="theme"][form="preferences"]')) {
      button.setAttribute("aria-pressed", String(button === chosen));
    }
  });

  // -- dates in the reader's words -------------------------------------------------------------

  const UNITS = [
    ["year", 31536000], ["month", 2592000], ["day", 86400],
    ["hour", 3600], ["minute", 60], ["second", 1],
  ];
  // The page's language, as it is written where the reader is.
  const locale = navigator.languages.find((one) => one.split("-")[0] === root.lang) || root.lang;
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
  const absolute = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

  const clock = new Intl.DateTimeFormat(locale, { timeStyle: "short" });

  /* Today's times by the clock alone, others with their day. */
  function byTheClock(moment) {
    const isToday = moment.toDateString() === new Date().toDateString();
    return (isToday ? clock : absolute).format(moment);
  }

  function showDates() {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) {
        continue;
      }
      if ("clock" in element.dataset) {
        element.textContent = byTheClock(moment);
        continue;
      }
      const seconds = Math.round((moment - Date.now()) / 1000);
      const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) || UNITS.at(-1);
      element.textContent = relative.format(Math.round(seconds / size), unit);
      element.title = absolute.format(moment);
    }
  }

  showDates();
  setInterval(showDates, 30000);

  // -- forms: one press is one request; the back button makes them usable again -------------------

  document.addEventListener("submit", (event) => {
    if (event.target.getAttribute("aria-busy") === "true") {
      event.preventDefault();
    } else if (!event.defaultPrevented) {
      event.target.setAttribute("aria-busy", "true");
    }
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[aria-busy]")) {
      form.removeAttribute("aria-busy");
    }
  });

  // -- the login page ---------------------------------------------------------------------------

  const password = document.getElementById("password_input");
  const reveal = document.getElementById("toggle_password_visibility");
  if (password && reveal) {
    reveal.addEventListener("click", () => {
      const show = password.type === "password";
      password.type = show ? "text" : "password";
      reveal.textContent = show ? reveal.dataset.hide : reveal.dataset.show;
    });
  }
  for (const button of document.querySelectorAll("[data-reveal]")) {
    button.addEventListener("click", () => {
      const fields = button.dataset.reveal.split(" ").map((id) => document.getElementById(id));
      const show = fields[0].type === "password";
      for (const field of fields) {
        field.type = show ? "text" : "password";
      }
      button.textContent = show ? button.dataset.hide : button.dataset.show;
      button.removeAttribute("aria-label");
    });
  }
  // A password typed twice: told before the form goes, so that neither is lost.
  for (const again of document.querySelectorAll("[data-same-as]")) {
    const first = document.getElementById(again.dataset.sameAs);
    const compare = () => {
      const differs = again.value && again.value !== first.value;
      again.setCustomValidity(differs ? again.dataset.differs : "");
    };
    again.addEventListener("input", compare);
    first.addEventListener("input", compare);
  }
  // A name that somebody chooses: a dot for each space, shown while there is time to change it.
  for (const field of document.querySelectorAll("[data-name-note]")) {
    const note = document.getElementById(field.dataset.nameNote);
    field.addEventListener("change", () => {
      const name = field.value.trim().replace(/\s+/g, ".");
      note.hidden = name === field.value.trim();
      note.querySelector("strong").textContent = name.toLowerCase();
      field.value = name;
    });
  }
  const insecure = document.getElementById("insecure-login-warning");
  if (insecure && !window.isSecureContext) {
    insecure.hidden = false;
  }

  // -- attributes that ask for something ----------------------------------------------------------

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const field = document.getElementById(button.dataset.copy);
      field.select();
      try {
        await navigator.clipboard.writeText(field.value);
      } catch {
        // The clipboard is closed to pages that came over plain HTTP.
        if (!document.execCommand("copy")) {
          return;
        }
      }
      button.textContent = button.dataset.done;
    });
  }

  for (const button of document.querySelectorAll("[data-print]")) {
    button.addEventListener("click", () => window.print());
  }

  const reloading = document.querySelector("[data-reload-after]");
  if (reloading) {
    const reload = () => {
      // Not under somebody's fingers.
      if (!document.activeElement.matches("input, select, textarea")) {
        window.location.reload();
      }
    };
    setInterval(reload, 1000 * Number(reloading.dataset.reloadAfter));
  }
  const going = document.querySelector("[data-go-to]");
  if (going) {
    const go = () => window.location.assign(going.dataset.goTo);
    setTimeout(go, 1000 * Number(going.dataset.goAfter));
  }

  // -- pages that stay current: the same page again, and of it what is marked as live ----------

  const living = document.querySelector("[data-live-every]");

  function takeOver(fresh) {
    for (const old of document.querySelectorAll("[data-live]")) {
      const key = CSS.escape(old.dataset.live);
      const now = fresh.querySelector(`[data-live="${key}"]`);
      // Not under somebody's fingers, and nothing that has not changed.
      if (!now || old.contains(document.activeElement) || old.dataset.was === now.innerHTML) {
        continue;
      }
      const boxes = [...old.querySelectorAll("input[type=checkbox]")];
      if (boxes.some((box) => box.checked !== box.defaultChecked)) {
        continue; // somebody has chosen among these, and is about to send it
      }
      const atEnd = old.scrollHeight - old.scrollTop - old.clientHeight < 40;
      old.dataset.was = now.innerHTML;
      old.replaceChildren(...now.childNodes);
      if ("stick" in old.dataset && atEnd) {
        old.scrollTop = old.scrollHeight;
      }
    }
    showDates();
  }

  async function refresh() {
    if (document.hidden) {
      return;
    }
    try {
      const answer = await fetch(window.location.href, { headers: { Accept: "text/html" } });
      if (answer.ok && !answer.redirected) {
        takeOver(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    } catch {
      // The hub is away; the next time may go well.
    }
  }

  if (living) {
    setInterval(refresh, 1000 * Number(living.dataset.liveEvery));
    for (const view of document.querySelectorAll("[data-stick]")) {
      view.scrollTop = view.scrollHeight;
    }
  }

  // -- menus close when the reader goes elsewhere ---------------------------------------------------

  function closeMenus(except) {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!except || !menu.contains(except)) {
        menu.open = false;
      }
    }
  }

  document.addEventListener("click", (event) => closeMenus(event.target));
  document.addEventListener("focusin", (event) => closeMenus(event.target));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const summary = document.activeElement.closest("details.menu")?.querySelector("summary");
      closeMenus(null);
      summary?.focus();
    }
  });

  for (const link of document.querySelectorAll(".topbar-links a")) {
    if (link.pathname === window.location.pathname) {
      link.setAttribute("aria-current", "page");
    }
  }
})();
