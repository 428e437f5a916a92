//! The time between a program's start and its end, as the agent sees it: reads the output file as it grows and listens
//! for the request to end. Knows what a line means only through the rules it is given.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wps_remote_protocol::LogLevel;

use super::deliver::{Notes, upload};
use super::ending::{self, Asked};
use super::stdout::{Line, Reader};
use super::{Event, Events, Host, Running};
use crate::engine::Peer;
use crate::outputs::{Delivery, Parcel, Upload};
use crate::workdir::{Ending, Folder};

/// How often the output file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(80);
/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// How often the position in the output is put down for a later agent.
const POSITION_EVERY: Duration = Duration::from_secs(1);
/// How much longer than the grace time a supervisor may take to end its job before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Follows a running execution to its ending.
pub(super) async fn follow(
    host: &Arc<Host>,
    running: Running,
    abort: &CancellationToken,
    events: &Events,
) -> Ending {
    let Running { folder, record, rules, mut supervisor, reported } = running;
    let begun = Instant::now();
    let execution = record.execution.clone();
    let mut reader = Reader::new(rules, Duration::ZERO);
    let mut tail = LogTail::new(record.launch.log.clone(), reported);
    let mut position = Position { folder: folder.clone(), written: reported, at: begun };
    let mut asked = Asked::Nothing;
    let mut give_up: Option<Instant> = None;
    let mut next_look = begun;
    loop {
        let mut lines = Vec::new();
        tokio::select! {
            biased;
            () = supervisor.ended() => break,
            () = abort.cancelled(), if asked == Asked::Nothing => {
                asked = Asked::ByOrchestrator;
                give_up = Some(Instant::now() + Duration::from_millis(record.launch.grace_ms) + PATIENCE);
                supervisor.terminate();
            }
            () = until(give_up) => {
                warn!(execution.id = %execution, "the supervisor did not end its job in time and is killed");
                give_up = None;
                supervisor.kill();
            }
            () = sleep_until(next_look) => {
                let more = tail.look(&mut reader, begun.elapsed(), &mut lines).await;
                reader.tick(begun.elapsed(), &mut lines);
                position.note(tail.offset).await;
                next_look = if more { Instant::now() } else { Instant::now() + LOOK_EVERY };
            }
        }
        if let Some(reason) = tell(lines, &execution, events).await
            && asked == Asked::Nothing
        {
            asked = Asked::ByRule(reason);
            give_up = Some(Instant::now() + Duration::from_millis(record.launch.grace_ms) + PATIENCE);
            supervisor.terminate();
        }
    }
    let mut lines = Vec::new();
    // Of an aborted job only the last lines matter; reading a huge log would delay the answer.
    if asked == Asked::ByOrchestrator {
        tail.skip_to_the_end().await;
    }
    while tail.look(&mut reader, begun.elapsed(), &mut lines).await {
        if let Some(reason) = tell(std::mem::take(&mut lines), &execution, events).await
            && asked == Asked::Nothing
        {
            asked = Asked::ByRule(reason);
        }
    }
    reader.finish(begun.elapsed(), &mut lines);
    if let Some(reason) = tell(lines, &execution, events).await
        && asked == Asked::Nothing
    {
        asked = Asked::ByRule(reason);
    }
    let _ = events.send((execution.clone(), Event::Read(reader.counts()))).await;
    let last_lines = reader.tail();
    let mut rules = reader.into_rules();
    let (whole, notes) = (host.clone(), Arc::new(Notes::default()));
    let noted = notes.clone();
    let task = spawn_blocking(move || {
        let send = |parcels: &[Parcel]| upload(&whole, parcels, &noted);
        let uploader: Option<&Upload<'_>> = if whole.uploader.is_some() { Some(&send) } else { None };
        let in_place = Peer(record.originator.clone()).is_legacy();
        let delivery = Delivery { shared: whole.shared.as_deref(), uploader, in_place };
        ending::make(&folder, &record, &delivery, asked, &last_lines, rules.as_mut())
    });
    let (made, receipt) = task.await.unwrap_or_else(|error| (ending::lost(&error.to_string()), None));
    for note in notes.take() {
        let _ = events.send((execution.clone(), Event::Log(LogLevel::Info, note))).await;
    }
    if let Some(receipt) = receipt {
        let _ =
            events.send((execution, Event::Log(ending::receipt_level(&receipt), receipt.to_string()))).await;
    }
    made
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Reports what was read; gives the reason if a rule asked for the end.
async fn tell(
    lines: Vec<Line>,
    execution: &wps_remote_protocol::ExecutionId,
    events: &Events,
) -> Option<String> {
    let mut reason = None;
    for line in lines {
        let event = match line {
            Line::Progress(percent) => Event::Progress(percent),
            Line::Log(level, text) => Event::Log(level, text),
            Line::Abort(text) => {
                reason.get_or_insert(text);
                continue;
            }
        };
        // A closed channel means that the agent stops; the job goes on without us.
        let _ = events.send((execution.clone(), event)).await;
    }
    reason
}

/// Reads a growing file.
struct LogTail {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    reported: u64,
}

impl LogTail {
    fn new(path: PathBuf, reported: u64) -> Self {
        Self { path, file: None, offset: 0, reported }
    }

    /// Reads one chunk; `true` if there may be more at once.
    async fn look(&mut self, reader: &mut Reader, now: Duration, out: &mut Vec<Line>) -> bool {
        let path = self.path.clone();
        let file = self.file.take();
        let task = spawn_blocking(move || {
            // The supervisor creates it; until then there is nothing to read.
            let mut file = match file {
                Some(file) => file,
                None => super::system::open_itself(&path)?,
            };
            let mut chunk = Vec::new();
            Read::by_ref(&mut file).take(CHUNK as u64).read_to_end(&mut chunk)?;
            Ok::<_, std::io::Error>((file, chunk))
        });
        let Ok(Ok((file, chunk))) = task.await else { return false };
        self.file = Some(file);
        let length = chunk.len();
        // What a former agent has reported only brings the reader into the right state.
        let old =
            usize::try_from(self.reported.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(length);
        reader.feed(&chunk[..old], now, true, out);
        reader.feed(&chunk[old..], now, false, out);
        self.offset += length as u64;
        length == CHUNK
    }

    async fn skip_to_the_end(&mut self) {
        let Some(mut file) = self.file.take() else { return };
        let offset = self.offset;
        let task = spawn_blocking(move || {
            let last = file.metadata().map_or(0, |metadata| metadata.len()).saturating_sub(CHUNK as u64 / 2);
            let to = last.max(offset);
            let moved = file.seek(SeekFrom::Start(to));
            (file, moved.unwrap_or(to))
        });
        if let Ok((file, offset)) = task.await {
            self.file = Some(file);
            self.offset = offset;
        }
    }
}

/// Puts the position down now and then, so that a later agent does not report lines again.
struct Position {
    folder: Folder,
    written: u64,
    at: Instant,
}

impl Position {
    async fn note(&mut self, offset: u64) {
        if offset <= self.written || self.at.elapsed() < POSITION_EVERY {
            return;
        }
        self.written = offset;
        self.at = Instant::now();
        let folder = self.folder.clone();
        let written = spawn_blocking(move || folder.write_position(offset)).await;
        if let Ok(Err(error)) = written {
            debug!(%error, "the position in the output was not put down");
        }
    }
}
