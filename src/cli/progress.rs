//! A job's progress on standard error: a bar on a terminal, a line now and then in a pipe.

use super::connection::Watcher;
use super::output::say;
use crate::base::bytes::human;
use crate::base::ids::JobId;
use crate::base::task::{Observer, Progress, Severity};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Shortest time between two lines of the same phase in a pipe, in milliseconds.
const LINE_INTERVAL_MS: u64 = 5_000;

/// Shows a job as it goes.
pub struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    verbose: bool,
    last: Progress,
    phase_began_ms: u64,
    line_at_ms: u64,
}

impl Display {
    /// A display that says only what went wrong if `quiet`, and everything if `verbose`.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Display { bar, quiet, verbose, last: Progress::default(), phase_began_ms: 0, line_at_ms: 0 }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn speak(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    fn draw(bar: &ProgressBar, progress: &Progress, new_phase: bool) {
        if new_phase {
            let template = match (progress.done, progress.total) {
                (0, 0) => "{spinner} {msg} ({elapsed})",
                (_, 0) => "{spinner} {msg} {binary_bytes} ({binary_bytes_per_sec})",
                _ => "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} ({binary_bytes_per_sec}, {eta} left)",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.reset_eta();
        }
        bar.set_message(progress.phase.clone());
        if progress.total > 0 {
            bar.set_length(progress.total.max(progress.done));
        }
        bar.set_position(progress.done);
    }
}

impl Watcher for Display {
    fn started(&mut self, job: JobId) {
        if self.verbose {
            self.speak(&format!("job {job}"));
        }
    }

    fn progress(&mut self, progress: &Progress) {
        if self.quiet || progress.phase.is_empty() {
            return;
        }
        let new_phase = progress.phase != self.last.phase;
        let new_sort = (progress.total == 0) != (self.last.total == 0) || (progress.done == 0) != (self.last.done == 0);
        if new_phase {
            self.phase_began_ms = progress.elapsed_ms;
        }
        if let Some(bar) = &self.bar {
            Self::draw(bar, progress, new_phase || new_sort);
        } else if new_phase || progress.elapsed_ms.saturating_sub(self.line_at_ms) >= LINE_INTERVAL_MS {
            let line = line(progress, progress.elapsed_ms.saturating_sub(self.phase_began_ms));
            if new_phase || *progress != self.last {
                say(&line);
            }
            self.line_at_ms = progress.elapsed_ms;
        }
        self.last = progress.clone();
    }

    fn event(&mut self, severity: Severity, text: &str) {
        match severity {
            Severity::Error => self.speak(&format!("error: {text}")),
            Severity::Warning => self.speak(&format!("warning: {text}")),
            Severity::Info if self.verbose => self.speak(text),
            Severity::Info => {}
        }
    }
}

/// A display that work in this process reports to.
pub struct Shared(Mutex<Display>);

impl Shared {
    /// Shares `display`.
    pub fn new(display: Display) -> Arc<Self> {
        Arc::new(Shared(Mutex::new(display)))
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.lock().finish();
    }

    fn lock(&self) -> MutexGuard<'_, Display> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Observer for Shared {
    fn event(&self, severity: Severity, text: &str) {
        Watcher::event(&mut *self.lock(), severity, text);
    }

    fn progress(&self, progress: &Progress) {
        Watcher::progress(&mut *self.lock(), progress);
    }
}

/// `dumping: 12.0 MiB of 40.0 MiB (30 %), 4.0 MiB/s, 7 s left`
fn line(progress: &Progress, in_phase_ms: u64) -> String {
    let mut line = progress.phase.clone();
    if progress.done == 0 {
        return line;
    }
    line.push_str(&format!(": {}", human(progress.done)));
    if progress.total > 0 {
        let total = progress.total.max(progress.done);
        line.push_str(&format!(" of {} ({} %)", human(total), u128::from(progress.done) * 100 / u128::from(total)));
    }
    if let Some(rate) = (progress.done * 1000).checked_div(in_phase_ms).filter(|rate| *rate > 0) {
        line.push_str(&format!(", {}/s", human(rate)));
        if progress.total > progress.done {
            line.push_str(&format!(", {} s left", (progress.total - progress.done).div_ceil(rate)));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_bytes_rate_and_what_is_left() {
        let progress =
            Progress { phase: "dumping".to_owned(), done: 12 << 20, total: 40 << 20, moved: 0, elapsed_ms: 9_000 };
        assert_eq!(line(&progress, 3_000), "dumping: 12.0 MiB of 40.0 MiB (30 %), 4.0 MiB/s, 7 s left");
        let unknown = Progress { total: 0, ..progress.clone() };
        assert_eq!(line(&unknown, 0), "dumping: 12.0 MiB");
        assert_eq!(line(&Progress { done: 0, ..progress }, 5), "dumping");
    }
}
