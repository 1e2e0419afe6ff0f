// A modal dialog.
import { html, useLayoutEffect, useRef } from "../lib/html.js";

/** A dialog that is open as long as it is drawn, and listens from its first sight on: it is opened with what it
 * shows, before the browser draws it, so that no key meets a dialog which is seen and not yet open.
 *
 * `label` is the id of its heading. `onClose()` has to stop drawing it; Escape calls it, unless `onCancel(event)`
 * prevents that. The focus goes to the first field of its form, and at the end to where it was. */
export function Modal({ label, onClose, onCancel, children }) {
  const ref = useRef(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    ref.current.querySelector("form :is(input, select, textarea, [type=submit])")?.focus();
    return () => before?.isConnected && before.focus();
  }, []);
  return html`<dialog ref=${ref} onClose=${onClose} onCancel=${onCancel} aria-labelledby=${label}>${children}</dialog>`;
}
