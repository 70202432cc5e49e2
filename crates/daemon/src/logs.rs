//! Logs to standard error, and which of them: that may be changed while a process runs.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How the targets of our own logs begin.
const OURS: &str = "avocet";

/// Starts logging at `level` (`RUST_LOG` refines it), without colours where nobody looks. Later calls change nothing of
/// the first one's.
pub fn start_logs(level: &str) -> Logs {
    let text = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| EnvFilter::try_new(text).is_ok());
    let (logs, filter) = Logs::of(text.as_deref().unwrap_or(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_filter(filter);
    let _ = tracing_subscriber::registry().with(layer).try_init();
    logs
}

/// Says which logs are written. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    /// What was said at the start.
    begun: Arc<str>,
    levels: Arc<Mutex<Levels>>,
    filter: reload::Handle<Chosen, Registry>,
}

/// Which of our own logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Someone must act.
    pub error: bool,
    /// Degraded.
    pub warning: bool,
    /// What happens.
    pub info: bool,
    /// 0 for nothing more, 1 for what helps to find a mistake, more for everything.
    pub verbose: u32,
}

impl Logs {
    /// Logs by this filter, which is to be that of a layer.
    fn of(text: &str) -> (Logs, reload::Layer<Chosen, Registry>) {
        let base = EnvFilter::new(text);
        let most = base.max_level_hint().unwrap_or(LevelFilter::TRACE);
        let levels = Levels {
            error: most >= LevelFilter::ERROR,
            warning: most >= LevelFilter::WARN,
            info: most >= LevelFilter::INFO,
            verbose: u32::from(most >= LevelFilter::DEBUG) + u32::from(most >= LevelFilter::TRACE),
        };
        let (layer, filter) = reload::Layer::new(Chosen { base, levels: None });
        (Logs { begun: text.into(), levels: Arc::new(Mutex::new(levels)), filter }, layer)
    }

    /// What is written now.
    pub fn levels(&self) -> Levels {
        *self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes these from now on; what others than we log stays as it was. Answers whether that is so: not where somebody
    /// else had started logs before.
    pub fn change(&self, change: impl FnOnce(Levels) -> Levels) -> bool {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = change(*levels);
        let chosen = Chosen { base: EnvFilter::new(&*self.begun), levels: Some(wanted) };
        let changed = self.filter.reload(chosen).is_ok();
        if changed {
            *levels = wanted;
        }
        changed
    }
}

/// A filter whose decisions about our own logs are others once they were changed.
struct Chosen {
    base: EnvFilter,
    levels: Option<Levels>,
}

impl Levels {
    fn takes(self, level: Level) -> bool {
        match level {
            Level::ERROR => self.error,
            Level::WARN => self.warning,
            Level::INFO => self.info,
            Level::DEBUG => self.verbose >= 1,
            Level::TRACE => self.verbose >= 2,
        }
    }

    fn most(self) -> LevelFilter {
        let all = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        all.into_iter().find(|level| self.takes(*level)).map_or(LevelFilter::OFF, Into::into)
    }
}

impl Chosen {
    fn decide(&self, metadata: &Metadata<'_>) -> Option<bool> {
        let levels = self.levels.filter(|_| metadata.target().starts_with(OURS))?;
        Some(levels.takes(*metadata.level()))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Chosen {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.decide(metadata).unwrap_or_else(|| Filter::enabled(&self.base, metadata, context))
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.decide(metadata) {
            Some(true) => Interest::always(),
            Some(false) => Interest::never(),
            None => Filter::<S>::callsite_enabled(&self.base, metadata),
        }
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        self.decide(event.metadata()).unwrap_or_else(|| Filter::event_enabled(&self.base, event, context))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let base = Filter::<S>::max_level_hint(&self.base)?;
        Some(self.levels.map_or(base, |levels| base.max(levels.most())))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Filter::on_new_span(&self.base, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.base, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_enter(&self.base, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_exit(&self.base, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Filter::on_close(&self.base, id, context);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        /// The levels of what was written since the last look, and who wrote it.
        fn take(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
            let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            text.lines().map(words).collect()
        }
    }

    fn log_all() {
        tracing::error!("!");
        tracing::warn!("!");
        tracing::info!("!");
        tracing::debug!("!");
        tracing::trace!("!");
        tracing::info!(target: "others", "!");
        tracing::warn!(target: "others", "!");
    }

    #[test]
    fn what_is_written_of_our_own_changes_at_once_and_of_others_never() {
        let (logs, filter) = Logs::of("warn");
        let written = Written::default();
        let writer = written.clone();
        let layer = fmt::layer().without_time().with_ansi(false).with_writer(move || writer.clone());
        let ours = |levels: &[&str]| -> Vec<String> {
            let ours = levels.iter().map(|level| format!("{level} avocet_daemon::logs::tests:"));
            ours.chain(["WARN others:".to_owned()]).collect()
        };
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(layer.with_filter(filter)),
            || {
                log_all();
                assert_eq!(written.take(), ours(&["ERROR", "WARN"]));
                assert_eq!(logs.levels(), Levels { error: true, warning: true, info: false, verbose: 0 });
                for (error, warning, info, verbose, expected) in [
                    (true, true, true, 0, ["ERROR", "WARN", "INFO"].as_slice()),
                    (true, false, false, 0, &["ERROR"]),
                    (false, false, true, 1, &["INFO", "DEBUG"]),
                    (true, true, true, 9, &["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]),
                    (false, false, false, 0, &[]),
                ] {
                    assert!(logs.change(|_| Levels { error, warning, info, verbose }));
                    log_all();
                    assert_eq!(written.take(), ours(expected));
                }
            },
        );
        let before = logs.levels();
        assert!(!logs.change(|levels| Levels { error: true, ..levels }), "nobody writes them any more");
        assert_eq!(logs.levels(), before);
    }
}
