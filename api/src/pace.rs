//! How often one token may ask. The generic cell rate algorithm: one number per token, the moment at which the
//! requests so far would have been served at the kept rate; who is more than a burst ahead of it waits.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::ApiError;

/// Tokens remembered; beyond it those that have long been quiet are forgotten, which only lets them start anew.
const TOKENS_REMEMBERED: usize = 10_000;

/// The next moment that is free for a token, or how long it has to wait.
fn step(due: Option<Instant>, now: Instant, interval: Duration, burst: Duration) -> Result<Instant, Duration> {
    let due = due.map_or(now, |d| d.max(now));
    match due.duration_since(now).checked_sub(burst) {
        Some(wait) if !wait.is_zero() => Err(wait),
        _ => Ok(due + interval),
    }
}

/// The pace of every token. The lock is held for a map access.
pub(crate) struct Pace {
    rate_requests_per_s: u32,
    interval: Duration,
    burst: Duration,
    due: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    pub(crate) fn new(config: &Config) -> Self {
        let interval = Duration::from_secs(1) / config.rate_requests_per_s.max(1);
        Self {
            rate_requests_per_s: config.rate_requests_per_s,
            interval,
            burst: interval * config.burst_requests.saturating_sub(1),
            due: Mutex::new(HashMap::new()),
        }
    }

    /// Counts one request of that token.
    pub(crate) fn admit(&self, token: &str) -> Result<(), ApiError> {
        let now = Instant::now();
        let mut due = self.due.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if due.len() >= TOKENS_REMEMBERED && !due.contains_key(token) {
            due.retain(|_, at| *at > now);
        }
        match step(due.get(token).copied(), now, self.interval, self.burst) {
            Ok(next) => {
                due.insert(token.to_owned(), next);
                Ok(())
            }
            Err(wait) => Err(ApiError::TooManyRequests {
                rate_requests_per_s: self.rate_requests_per_s,
                retry_after_s: wait.as_secs_f64().ceil() as u64,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let (start, interval, burst) = (Instant::now(), Duration::from_millis(100), Duration::from_millis(400));
        let mut due = None;
        for _ in 0..5 {
            due = Some(step(due, start, interval, burst).unwrap());
        }
        assert_eq!(step(due, start, interval, burst), Err(Duration::from_millis(100)));
        assert!(step(due, start + interval, interval, burst).is_ok());
        let later = start + Duration::from_secs(60);
        assert_eq!(
            step(due, later, interval, burst),
            Ok(later + interval),
            "quiet time is not saved up beyond a burst"
        );
    }
}
