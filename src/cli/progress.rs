//! Progress on stderr, once something takes longer than a second: a spinner on a terminal, lines elsewhere.

use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

const QUIET: Duration = Duration::from_secs(1);

/// What is being waited for.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
    shown: String,
    current: String,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        let (shown, current) = (String::new(), String::new());
        Self {
            started: Instant::now(),
            terminal: stderr().is_terminal(),
            bar: None,
            shown,
            current,
        }
    }

    /// Sets what is being waited for.
    pub fn set(&mut self, text: impl Into<String>) {
        self.current = text.into();
        self.refresh();
    }

    /// Nothing is waited for any more.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.current.clear();
        self.shown.clear();
    }

    /// Shows what is due. To be called about once a second.
    pub fn refresh(&mut self) {
        if self.started.elapsed() < QUIET || self.current == self.shown {
            return;
        }
        self.shown.clone_from(&self.current);
        if self.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                bar.with_elapsed(self.started.elapsed())
            });
            bar.set_message(self.current.clone());
        } else {
            output::note(&self.current);
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
