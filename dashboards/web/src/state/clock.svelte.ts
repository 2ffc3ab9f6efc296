// The present, in milliseconds since 1970, as often as somebody can see it move.

const TICK_MS = 250;

export class Clock {
  now = $state(Date.now());

  start(): () => void {
    const timer = setInterval(() => (this.now = Date.now()), TICK_MS);
    return () => clearInterval(timer);
  }
}
