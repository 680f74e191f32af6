/* The page of a server that starts: its events as they come, then the server itself. */
(function () {
  "use strict";
  const page = document.getElementById("spawn-pending");
  if (!page) {
    return;
  }
  const bar = document.getElementById("progress-bar");
  const message = document.getElementById("progress-message");
  const log = document.getElementById("progress-log");
  const elapsed = document.getElementById("elapsed");

  // -- how long it has taken ---------------------------------------------------------------------

  const begin = performance.now() - 1000 * Number(page.dataset.elapsed);

  function showElapsed() {
    const seconds = Math.floor((performance.now() - begin) / 1000);
    const rest = String(seconds % 60).padStart(2, "0");
    elapsed.textContent = `${elapsed.dataset.label} ${Math.floor(seconds / 60)}:${rest}`;
  }

  if (elapsed) {
    showElapsed();
    setInterval(showElapsed, 1000);
  }

  // -- what happens ---------------------------------------------------------------------------------

  let position = 0; // of the next event in the log; the hub tells them all again after a reconnect

  function show(event) {
    if (typeof event.progress === "number") {
      bar.value = event.progress;
      bar.textContent = `${event.progress}%`;
    }
    const line = document.createElement("li");
    if (event.html_message) {
      line.innerHTML = event.html_message;
    } else if (event.message) {
      line.textContent = event.message;
    } else {
      return;
    }
    message.innerHTML = line.innerHTML;
    const known = log?.children[position];
    if (known?.innerHTML === line.innerHTML) {
      position += 1;
    } else if (log) {
      log.append(line);
      position = log.children.length;
    }
  }

  function open(url) {
    const target = new URL(url || window.location.href, window.location.href);
    if (target.protocol === "http:" || target.protocol === "https:") {
      window.location.replace(target.href);
    }
  }

  const address = new URL(page.dataset.progressUrl, window.location.href);
  address.searchParams.set("_xsrf", window.jhdata.xsrf_token);
  const source = new EventSource(address);
  source.addEventListener("open", () => {
    position = 0;
  });
  source.addEventListener("message", (received) => {
    const event = JSON.parse(received.data);
    show(event);
    if (event.ready) {
      source.close();
      open(page.dataset.url || event.url);
    } else if (event.failed) {
      source.close();
      window.location.reload();
    }
  });
  document.getElementById("cancel-form")?.addEventListener("submit", () => {
    source.close(); // the start that fails now must not reload the page that is being left
  });
  source.addEventListener("error", () => {
    // The browser reconnects by itself unless the hub refused; then the page asks again.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => window.location.reload(), 3000);
    }
  });

  // Browser tests wait for it, as they do on other hubs.
  window._jupyterhub_page_loaded = true;
})();
