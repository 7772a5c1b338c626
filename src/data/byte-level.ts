/**
 * GPT-2's byte-level alphabet: every byte has a printable character, so that any text is a string over 256 symbols
 * and tokenizing loses nothing.
 * @see openai/gpt-2 `encoder.py` bytes_to_unicode; Radford et al. 2019 §2.2
 */

/** GPT-2's pre-tokenizer: words with their leading space, numbers, punctuation runs, whitespace. Covers every text. */
export const WORD_PATTERN = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

/** `[256]` the character of each byte: itself where printable, else the next one from U+0100 on. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
})();

const encoder = new TextEncoder();

/** A word as a string over the byte alphabet, e.g. " cat" -> "Ġcat". */
export function toByteCharacters(word: string): string {
  let characters = "";
  for (const byte of encoder.encode(word)) characters += BYTE_CHARACTERS[byte];
  return characters;
}
