/**
 * Untrusted text (model output, prompts, file names, peers' messages) made safe to print: a terminal must never act
 * on what a model wrote.
 */

/** C0, DEL, C1, line/paragraph separators, and the bidirectional controls that can reorder a line. */
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const UNSAFE_BUT_NEWLINE =
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

const SHORT_ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escapeCharacter(character: string): string {
  return SHORT_ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** One line, every control and bidirectional character as a visible escape: `"a\x1b[31m"` becomes `a\u001b[31m`. */
export function escapeControl(text: string): string {
  return text.replace(UNSAFE, escapeCharacter);
}

/** As escapeControl, but newlines stay, e.g. for a stack trace. */
export function escapeControlLines(text: string): string {
  return text.replace(UNSAFE_BUT_NEWLINE, escapeCharacter);
}
