//! Bars on a terminal, plain lines in a pipe.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How far the demo is.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A demo of so many steps.
    pub fn new(steps: u64) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24.cyan} {pos}/{len} {msg} {elapsed}");
            ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    /// Does a step, and says which and how long it took.
    ///
    /// # Errors
    /// The step's own.
    pub async fn step<T, E>(&mut self, name: &'static str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let began = Instant::now();
        match &self.bar {
            Some(bar) => bar.set_message(name),
            None => println!("{name} …"),
        }
        let done = work.await?;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => println!("{name}: {:.1} s", began.elapsed().as_secs_f64()),
        }
        Ok(done)
    }

    /// All steps are done.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
