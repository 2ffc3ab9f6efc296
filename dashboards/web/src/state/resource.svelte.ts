// One thing that the API tells: its value, whether it was ever told, what went wrong, and when to ask again.

import { ApiError } from "../api/client";

/** Between two questions about one thing, however many events say that it changed. */
const ASK_AGAIN_MS = 1000;

export class Resource<T> {
  value = $state.raw<T>() as T;
  error = $state.raw<ApiError | null>(null);
  /** Whether the value was ever told. */
  told = $state(false);
  private asking = false;
  private stale = false;
  private askedAt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly load: () => Promise<T>,
    private readonly failed: (error: ApiError) => void,
    empty: T,
  ) {
    this.value = empty;
  }

  /** Says that the value changed: asks now, or as soon as it is time. */
  touch(): void {
    this.stale = true;
    if (this.asking || this.timer !== undefined) return;
    const wait = Math.max(0, this.askedAt + ASK_AGAIN_MS - performance.now());
    this.timer = setTimeout(() => void this.ask(), wait);
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.stale = false;
  }

  private async ask(): Promise<void> {
    this.timer = undefined;
    this.asking = true;
    this.stale = false;
    this.askedAt = performance.now();
    try {
      this.value = await this.load();
      this.told = true;
      this.error = null;
    } catch (why) {
      this.error = why instanceof ApiError ? why : new ApiError(0, "the answer is not what the API promises", String(why));
      this.failed(this.error);
    } finally {
      this.asking = false;
      if (this.stale) this.touch();
    }
  }
}
