/** Dialog: the frame of every dialog. Escape and a click beside it close it, unless `onClose` is null; the focus returns. */
import { html, useLayoutEffect, useRef } from "./vendor/preact.js";
import { Notices } from "./app.js";
import { iconButton, set, state } from "./core.js";

export const closeDialog = () => set({ dialog: null });

/** Closes a dialog whose work is done. False: it was left meanwhile, and another one may be open. */
export function closeAfterWork(dialog) {
  const isOpen = state.dialog === dialog;
  if (isOpen) closeDialog();
  return isOpen;
}

export function Dialog({ title, wide = false, onClose = closeDialog, children }) {
  const dialog = useRef();
  const heading = useRef();
  // In the same step as it is shown: keys that are pressed at once are the dialog's.
  useLayoutEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    set({ isModal: true });
    // What comes first may be read from the server first.
    const focusFirst = () => {
      const first = dialog.current?.querySelector("[data-first]");
      if (first) first.focus();
      return Boolean(first);
    };
    const watcher = new MutationObserver(() => focusFirst() && watcher.disconnect());
    if (!focusFirst()) {
      heading.current.focus();
      watcher.observe(dialog.current, { childList: true, subtree: true });
    }
    return () => {
      watcher.disconnect();
      set({ isModal: false });
      // What is behind a dialog cannot have the focus while that is open.
      dialog.current?.close();
      if (before?.isConnected) before.focus?.();
    };
  }, []);
  return html`<dialog class=${wide ? "wide" : ""} ref=${dialog} aria-labelledby="dialog-title" onCancel=${(event) => { event.preventDefault(); onClose?.(); }}
    onMouseDown=${(event) => event.target === dialog.current && onClose?.()}>
    <div class="dialog-head"><h2 id="dialog-title" ref=${heading} tabindex="-1">${title}</h2>${onClose && iconButton("close", "Close", onClose)}</div>
    <div class="dialog-body">${children}</div>
    <${Notices} />
  </dialog>`;
}
