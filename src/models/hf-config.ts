import { dataError, type TroupeError } from "../shared/errors.js";

/** Far above any real model, low enough that a hostile config costs nothing before its weights are seen. */
const MAX_SIZE = 2 ** 24;
const MAX_LAYERS = 1024;

/**
 * Reads fields of a Hugging Face `config.json`, which comes from outside: every error names the field, what was
 * expected and what came. `null` counts as absent, as in transformers.
 */
export class HfConfig {
  private readonly fields: Readonly<Record<string, unknown>>;

  /** @param path of the object inside config.json, with its dot */
  constructor(
    json: unknown,
    private readonly path = "",
  ) {
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw dataError(
        `config.json: expected a JSON object, got ${Array.isArray(json) ? "a list" : String(json)}`,
      );
    }
    this.fields = json as Record<string, unknown>;
  }

  private get(field: string): unknown {
    return Object.hasOwn(this.fields, field) ? (this.fields[field] ?? undefined) : undefined;
  }

  get isEmpty(): boolean {
    return Object.keys(this.fields).length === 0;
  }

  /** The field stands there, be it as `null`. */
  states(field: string): boolean {
    return Object.hasOwn(this.fields, field) && this.fields[field] !== undefined;
  }

  fail(field: string, expected: string): TroupeError {
    return dataError(
      `config.json: field ${this.path}${field} must be ${expected}, got ${JSON.stringify(this.get(field)) ?? "nothing"}`,
    );
  }

  /** A whole number from 1 to `max`. */
  size(field: string, fallback?: number, max = MAX_SIZE): number {
    const value = this.get(field) ?? fallback;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1 || value > max) {
      throw this.fail(field, `a whole number from 1 to ${max}`);
    }
    return value;
  }

  /** Number of layers. */
  layers(field: string, fallback?: number): number {
    return this.size(field, fallback, MAX_LAYERS);
  }

  /**
   * A whole number >= 1, or null.
   * @param fallback for a config that leaves the field out; an explicit `null` stays null
   */
  optionalSize(field: string, fallback: number | null = null): number | null {
    if (!this.states(field)) return fallback;
    return this.get(field) === undefined ? null : this.size(field);
  }

  /** A finite number > 0. */
  positive(field: string, fallback?: number): number {
    const value = this.get(field) ?? fallback;
    if (typeof value !== "number" || !(value > 0) || !Number.isFinite(value))
      throw this.fail(field, "a number above 0");
    return value;
  }

  flag(field: string, fallback: boolean): boolean {
    const value = this.get(field) ?? fallback;
    if (typeof value !== "boolean") throw this.fail(field, "true or false");
    return value;
  }

  choice<T extends string>(field: string, choices: readonly T[], fallback?: T): T {
    const value = this.get(field) ?? fallback;
    const match = choices.find((choice) => choice === value);
    if (match === undefined) throw this.fail(field, `one of ${choices.join(", ")}`);
    return match;
  }

  /** Refuses a feature whose presence would change the model's output. */
  requireValue(field: string, required: boolean | number, fallback: boolean | number): void {
    if ((this.get(field) ?? fallback) !== required)
      throw this.fail(field, `${required} (anything else is not supported)`);
  }

  tokenId(field: string): number | null {
    const value = this.get(field) ?? null;
    if (value !== null && (typeof value !== "number" || !Number.isSafeInteger(value) || value < -1)) {
      throw this.fail(field, "a token id or null");
    }
    return value === null || value < 0 ? null : value;
  }

  /** One id, several, or none. */
  tokenIds(field: string): number[] {
    const value = this.get(field);
    if (!Array.isArray(value)) return [this.tokenId(field)].filter((id) => id !== null);
    if (!value.every((id): id is number => Number.isSafeInteger(id) && (id as number) >= 0)) {
      throw this.fail(field, "a token id or a list of them");
    }
    return value;
  }

  /** A nested object, or null. */
  object(field: string): HfConfig | null {
    const value = this.get(field);
    if (value === undefined) return null;
    if (typeof value !== "object" || Array.isArray(value)) throw this.fail(field, "an object");
    return new HfConfig(value, `${this.path}${field}.`);
  }

  text(field: string): string | null {
    const value = this.get(field) ?? null;
    if (value !== null && typeof value !== "string") throw this.fail(field, "text");
    return value;
  }
}

/** `total / parts`, or an error naming both. */
export function exactDivision(total: number, parts: number, what: string): number {
  if (total % parts !== 0) throw dataError(`config.json: ${what}: ${total} is not divisible by ${parts}`);
  return total / parts;
}
