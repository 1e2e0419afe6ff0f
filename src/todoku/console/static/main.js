// Start the console: preferences, keys, the stream, and the page that the address names.
import { html, render } from "./lib/html.js";
import { loadAbout, loadSession } from "./lib/api.js";
import { handleKeys } from "./lib/keys.js";
import { begin as follow } from "./lib/live.js";
import { followLinks } from "./lib/router.js";
import { begin as measure } from "./lib/snapshot.js";
import { Shell } from "./components/shell.js";

const root = document.getElementById("console");
followLinks(document);
handleKeys();
render(html`<${Shell} />`, root);
loadAbout().catch(() => {});
// The first requests already carry the token of the session.
loadSession()
  .catch(() => {})
  .finally(() => {
    follow();
    measure();
  });
