/** A list that stays in order: a member finds its place, or itself, in log n looks. Taking the first costs nothing. */
export class OrderedList<T> {
  /** Members from `first` on; what lies before is gone. */
  private members: T[] = [];
  private first = 0;

  /** @param compare below 0 when `a` comes first; 0 for one and the same only, and never another answer while it is in the list */
  constructor(private readonly compare: (a: T, b: T) => number) {}

  get size(): number {
    return this.members.length - this.first;
  }

  /** @param place from 0 to size − 1 */
  at(place: number): T {
    return this.members[this.first + place];
  }

  add(member: T): void {
    const place = this.placeOf(member);
    if (this.members[place] !== member) this.members.splice(place, 0, member);
  }

  /** @returns whether it was there */
  delete(member: T): boolean {
    const place = this.placeOf(member);
    if (this.members[place] !== member) return false;
    if (place > this.first) this.members.splice(place, 1);
    else if (++this.first * 2 > this.members.length) {
      this.members = this.members.slice(this.first);
      this.first = 0;
    }
    return true;
  }

  *[Symbol.iterator](): Iterator<T> {
    for (let place = 0; place < this.size; place++) yield this.at(place);
  }

  private placeOf(member: T): number {
    const { members, compare } = this;
    let low = this.first;
    let high = members.length;
    if (low < high && compare(members[high - 1], member) < 0) return high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(members[middle], member) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
