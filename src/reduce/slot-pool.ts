/** Buckets' memory, used again: touching fresh pages costs more than summing what is in them. */
export class SlotPool {
  private readonly free: Buffer[] = [];

  constructor(
    private readonly slotBytes: number,
    private readonly maxFree: number,
  ) {}

  /** Memory of `bytes` (at most a slot), content undefined. */
  take(bytes: number): Buffer {
    const slot = this.free.pop() ?? Buffer.allocUnsafeSlow(this.slotBytes);
    return bytes === this.slotBytes ? slot : slot.subarray(0, bytes);
  }

  /** Takes back what `take` gave, and leaves alone what came from elsewhere. */
  give({ buffer, byteOffset }: Uint8Array): void {
    const isSlot = buffer.byteLength === this.slotBytes && byteOffset === 0;
    if (isSlot && this.free.length < this.maxFree) this.free.push(Buffer.from(buffer as ArrayBuffer));
  }
}
