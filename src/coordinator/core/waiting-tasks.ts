/**
 * Tasks nobody holds, by who asked for them: those of one collection (or evaluation) wait for the same things, so that
 * what is asked after every event costs a look at each group and not at each task.
 */
import { OrderedList } from "./ordered-list.js";
import type { Task } from "./state.js";

/** What waits of one collection or evaluation. */
export interface WaitingGroup {
  readonly kind: Task["kind"];
  readonly owner: Task["owner"];
  readonly policyVersion: number;
  /** Oldest first. */
  readonly tasks: OrderedList<Task>;
  /** Not resolved yet, over all `tasks`. */
  openIds: number;
}

export class WaitingTasks {
  /** In the order they were asked for; one without tasks keeps its place, since some of them may come back. */
  private readonly groups = new Map<Task["owner"], WaitingGroup>();
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** A new task, or one that was handed out and came back: it takes the place its age gives it. */
  add(task: Task): void {
    const { owner, kind, policyVersion } = task;
    let group = this.groups.get(owner);
    if (group === undefined) {
      const tasks = new OrderedList<Task>((a, b) => a.order - b.order);
      this.groups.set(owner, (group = { owner, kind, policyVersion, tasks, openIds: 0 }));
    }
    group.tasks.add(task);
    group.openIds += task.openIds.size;
    this.count += 1;
  }

  /** The task is handed out, or over. */
  delete(task: Task): void {
    const group = this.groups.get(task.owner);
    if (group === undefined || !group.tasks.delete(task)) return;
    group.openIds -= task.openIds.size;
    this.count -= 1;
  }

  /** One of the open ids of a task that waits is resolved. */
  resolve(task: Task): void {
    this.groups.get(task.owner)!.openIds -= 1;
  }

  /** No task of it comes back. */
  forget(owner: Task["owner"]): void {
    this.groups.delete(owner);
  }

  /** Oldest first. */
  [Symbol.iterator](): Iterator<WaitingGroup> {
    return this.groups.values();
  }

  /** Open ids that wait in collections older than `iteration`. */
  openBefore(iteration: number): number {
    let open = 0;
    for (const { kind, owner, openIds } of this.groups.values())
      if (kind === "experience" && (owner as number) < iteration) open += openIds;
    return open;
  }
}
