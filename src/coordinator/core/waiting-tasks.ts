/** Tasks nobody holds, oldest first: what is asked for after every event must not cost a look at every task. */
import type { Task } from "./state.js";

export class WaitingTasks {
  /** Oldest first. */
  private tasks = new Set<Task>();
  /** Given back since they were last looked at; their place is somewhere in between. */
  private readonly returned = new Set<Task>();

  get size(): number {
    return this.tasks.size + this.returned.size;
  }

  /** A task younger than all before it. */
  add(task: Task): void {
    this.tasks.add(task);
  }

  /** A task that was handed out and came back: it takes the place its age gives it. */
  giveBack(task: Task): void {
    this.returned.add(task);
  }

  delete(task: Task): void {
    if (!this.returned.delete(task)) this.tasks.delete(task);
  }

  [Symbol.iterator](): Iterator<Task> {
    if (this.returned.size > 0) {
      this.tasks = new Set([...this.tasks, ...this.returned].sort((a, b) => a.order - b.order));
      this.returned.clear();
    }
    return this.tasks.values();
  }
}
