//! Where a service says what it does: a file a day beside its configuration, and the few things that an administrator must
//! see in the event log.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::winapi::report::{self, Kind};

/// Files that are kept.
const DAYS: usize = 14;
/// Where sources of the log "Application" are registered.
const SOURCES: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";
/// A file of the system whose messages 1 to 1000 are just the text that is given.
const MESSAGES: &str = r"%SystemRoot%\System32\EventCreate.exe";

/// Numbers of our events, by which monitoring can select them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Id {
    /// The service runs.
    Started = 1,
    /// The service has stopped in order.
    Stopped = 2,
    /// The service could not start.
    CannotStart = 3,
    /// The service broke while running.
    Broke = 4,
    /// An error while running.
    Trouble = 5,
}

/// Starts the log of the process: a file a day in this folder, errors also in the event log.
pub(super) fn start(source: &str, folder: &Path) -> io::Result<()> {
    let file = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("agent")
        .filename_suffix("log")
        .max_log_files(DAYS)
        .build(folder)
        .map_err(io::Error::other)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let text = tracing_subscriber::fmt::layer().with_writer(file).with_ansi(false).with_target(false);
    let errors = Errors { source: source.to_owned() };
    // `main` has started a log on standard error, which a service does not have, unless it left that to us.
    tracing_subscriber::registry().with(filter).with(text).with(errors).try_init().map_err(io::Error::other)
}

/// Writes an entry into the event log. That it cannot be written is no reason to end.
pub(crate) fn event(source: &str, kind: Kind, id: Id, text: &str) {
    if let Err(error) = report::report(source, kind, id as u32, text) {
        tracing::debug!("no entry in the event log: {error}");
    }
}

/// Registers the service as a source, so that entries are shown as they were written.
pub(super) fn register(source: &str) -> windows_registry::Result<()> {
    let key = windows_registry::LOCAL_MACHINE.create(format!(r"{SOURCES}\{source}"))?;
    key.set_expand_string("EventMessageFile", MESSAGES)?;
    key.set_u32("TypesSupported", 7)
}

/// Undoes it. Entries that were written stay.
pub(super) fn unregister(source: &str) -> windows_registry::Result<()> {
    windows_registry::LOCAL_MACHINE.remove_tree(format!(r"{SOURCES}\{source}"))
}

struct Errors {
    source: String,
}

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, happened: &Event<'_>, _: Context<'_, S>) {
        if *happened.metadata().level() == Level::ERROR {
            let mut text = Text(String::new());
            happened.record(&mut text);
            event(&self.source, Kind::Error, Id::Trouble, &text.0);
        }
    }
}

/// An event's message and fields in one line.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" if self.0.is_empty() => write!(self.0, "{value:?}"),
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, "{}{name}={value:?}", if self.0.is_empty() { "" } else { " " }),
        };
    }
}
