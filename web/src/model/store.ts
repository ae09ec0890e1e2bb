/** One value that changes often and is followed without drawing everything again, such as what the pointer is on. */

export class Watched<T> {
  private readonly followers = new Set<(value: T) => void>();

  constructor(public value: T) {}

  set(value: T): void {
    if (value === this.value) return;
    this.value = value;
    for (const follow of this.followers) follow(value);
  }

  follow(follower: (value: T) => void): () => void {
    this.followers.add(follower);
    return () => this.followers.delete(follower);
  }
}
