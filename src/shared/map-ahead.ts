/**
 * Works on up to `width` items at once and yields the results in the items' order. After a failure nothing more is
 * started, and what was under way has ended by the time the error is thrown.
 */
export async function* mapAhead<T, R>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R, void, undefined> {
  const started: Promise<R>[] = [];
  try {
    for (const item of items) {
      const result = work(item);
      result.catch(() => {}); // thrown below, in its turn
      started.push(result);
      if (started.length >= width) yield await started.shift()!;
    }
    while (started.length > 0) yield await started.shift()!;
  } finally {
    await Promise.allSettled(started);
  }
}
