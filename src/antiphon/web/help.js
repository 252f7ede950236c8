/** Help: the keys, and what the page promises. */
import { html } from "./vendor/preact.js";
import { Dialog } from "./dialog.js";

const KEYS = [
  ["Ctrl K", "Search, and everything that can be done"],
  ["Ctrl F", "In a long chat: search in all of it; once more, in what is in view"],
  ["Alt N", "New chat"],
  ["/", "To the message"],
  ["Enter", "Send; Shift Enter is a new line"],
  ["Esc", "Stop the answer, and keep what has come"],
  ["↑", "In an empty message: edit the last of the queue"],
  ["j  k", "Next and previous turn"],
  ["[  ]", "Previous and next version of a turn"],
  ["e", "Edit the question of the turn, or of the last one"],
  ["r", "Ask it again"],
  ["m", "Map of branches"],
  ["i", "Approvals"],
  ["?", "This sheet"],
];

export default function Help() {
  return html`<${Dialog} title="Keys and help">
    <dl class="keys">${KEYS.map(([key, words]) => html`<div key=${key}><dt>${key.split("  ").map((one) => html`<kbd class="key">${one}</kbd>`)}</dt><dd>${words}</dd></div>`)}</dl>
    <p>Everything here is a request to this server's own interface: <a href="/docs">/docs</a> lists them. A chat goes on in any program that speaks it, and what a program adds appears here.</p>
    <p>Close the page in the middle of an answer, stop the server, lose the network: the answer is there when you are back, and a message that could not be sent is sent once.</p>
  <//>`;
}
