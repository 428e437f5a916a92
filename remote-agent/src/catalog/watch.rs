//! Watches a folder of descriptors: what is dropped, changed or removed shows well within a second, what is still being
//! written causes no stir. The system's notifications only say when to look; what is there is read from the folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::listing::{Stamp, list};
use super::{Catalog, CatalogChange, CatalogError};
use crate::command::program;
use crate::descriptor::{LoadContext, ServiceDescriptor};
use crate::files;

/// A file must not have changed for so long before it is read.
const STILL: Duration = Duration::from_millis(150);
/// A file that cannot be used must stay so for so long before that is said.
const STILL_BROKEN: Duration = Duration::from_millis(500);
/// Pause between two looks while something is in motion.
const LOOK: Duration = Duration::from_millis(50);
/// Pause between two looks when nothing was notified.
const RESCAN: Duration = Duration::from_secs(2);
/// Pause between two searches for programs that were missing.
const RETRY_HELD: Duration = Duration::from_secs(60);
/// Changes that may wait for a reader; more are dropped, since the offer itself is always complete.
const CHANGES: usize = 1024;

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// Folders of descriptors, and single descriptors.
    pub roots: Vec<PathBuf>,
    /// Folders that are not looked into: run directories, records, the shared folder.
    pub exclude: Vec<PathBuf>,
    /// What descriptors are lent.
    pub context: LoadContext,
}

/// What a watched folder gives.
#[derive(Debug)]
pub struct Watched {
    /// What is offered now; complete at every moment.
    pub offers: watch::Receiver<Vec<Arc<ServiceDescriptor>>>,
    /// What happened, for those who want to know more; may be left unread.
    pub changes: mpsc::Receiver<CatalogChange>,
}

/// Takes a first look, so that the first offer is complete, and gives the task that keeps watching until it is dropped.
pub fn watch(
    mut settings: WatchSettings,
) -> Result<(Watched, impl Future<Output = ()> + Send), CatalogError> {
    for root in &mut settings.roots {
        let real = files::canonical(root);
        *root = real.map_err(|source| CatalogError::NoFolder { path: root.clone(), source })?;
    }
    // Compared with paths below the roots, so links must be resolved in both.
    for folder in &mut settings.exclude {
        if let Ok(real) = files::canonical(folder) {
            *folder = real;
        }
    }
    let (offers_in, offers) = watch::channel(Vec::new());
    let (changes_in, changes) = mpsc::channel(CHANGES);
    // One place is enough: it says only that there is something to look at.
    let (dirty_in, dirty) = mpsc::channel(1);
    let watcher = notifier(&settings, dirty_in);
    let mut keeper = Keeper::new(settings);
    let first = keeper.look(true);
    publish(&keeper, first, &offers_in, &changes_in);
    Ok((Watched { offers, changes }, run(keeper, watcher, dirty, offers_in, changes_in)))
}

/// The system's notifications; without them the folder is looked at every now and then.
fn notifier(settings: &WatchSettings, dirty: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let exclude = settings.exclude.clone();
    let react = move |event: notify::Result<notify::Event>| {
        let ours = match &event {
            Ok(event) if event.kind.is_access() => false,
            Ok(event) => {
                let inside = |path: &PathBuf| exclude.iter().any(|folder| path.starts_with(folder));
                event.paths.is_empty() || !event.paths.iter().all(inside)
            }
            Err(_) => true,
        };
        if ours {
            // Full means that a look is due anyway.
            let _ = dirty.try_send(());
        }
    };
    let made = notify::recommended_watcher(react).and_then(|mut watcher| {
        for root in &settings.roots {
            // A single file is watched through its folder: an editor that renames would be lost otherwise.
            match root.parent() {
                Some(folder) if root.is_file() => watcher.watch(folder, RecursiveMode::NonRecursive)?,
                _ => watcher.watch(root, RecursiveMode::Recursive)?,
            }
        }
        Ok(watcher)
    });
    match made {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!(
                "the folder of descriptors is looked at every {} s only: no notifications: {error}",
                RESCAN.as_secs()
            );
            None
        }
    }
}

async fn run(
    mut keeper: Keeper,
    // Held only: it stops when it is dropped.
    _watcher: Option<RecommendedWatcher>,
    mut dirty: mpsc::Receiver<()>,
    offers: watch::Sender<Vec<Arc<ServiceDescriptor>>>,
    changes: mpsc::Sender<CatalogChange>,
) {
    let mut notified = true;
    loop {
        let pause = if keeper.pending.is_empty() { RESCAN } else { LOOK };
        let mut told = false;
        tokio::select! {
            event = dirty.recv(), if notified => match event {
                // Events come in swarms; one look serves them all.
                Some(()) => { told = true; sleep(Duration::from_millis(20)).await; }
                None => notified = false,
            },
            () = sleep(pause) => {}
        }
        let looked = spawn_blocking(move || {
            let found = keeper.look(told);
            (keeper, found)
        });
        // Fails only when the runtime ends.
        let Ok((same, found)) = looked.await else { return };
        keeper = same;
        publish(&keeper, found, &offers, &changes);
    }
}

/// Tells what a look has found.
fn publish(
    keeper: &Keeper,
    found: Vec<CatalogChange>,
    offers: &watch::Sender<Vec<Arc<ServiceDescriptor>>>,
    changes: &mpsc::Sender<CatalogChange>,
) {
    if found.is_empty() {
        return;
    }
    for change in &found {
        tell(change);
    }
    offers.send_replace(keeper.catalog.offers());
    for change in found {
        // A receiver that is full or gone is no fault of the folder.
        let _ = changes.try_send(change);
    }
}

fn tell(change: &CatalogChange) {
    match change {
        CatalogChange::Added(descriptor) => {
            info!(process.id = %descriptor.id, file = %descriptor.source.display(), "offers process {}", descriptor.id);
            warnings(descriptor);
        }
        CatalogChange::Changed(descriptor) => {
            info!(process.id = %descriptor.id, file = %descriptor.source.display(), "process {} has changed", descriptor.id);
            warnings(descriptor);
        }
        CatalogChange::Removed(id) => info!(process.id = %id, "process {id} is not offered any more"),
        CatalogChange::Broken { error, kept: Some(id) } => {
            warn!(process.id = %id, "descriptor cannot be used, the last good version stays: {error}");
        }
        CatalogChange::Broken { error, kept: None } => warn!("descriptor cannot be used: {error}"),
        CatalogChange::Held { id, file, line, held } => {
            warn!(process.id = %id, "process {id} is held back: {}, line {line}: {held}", file.display());
        }
        CatalogChange::Duplicate { id, first, second } => warn!(
            process.id = %id,
            "{} is left out: {} offers {id} already; rename the service in one of the two",
            second.display(),
            first.display()
        ),
        CatalogChange::Inactive { id, file } => {
            info!(process.id = %id, "process {id} is switched off (active = false in {})", file.display());
        }
    }
}

fn warnings(descriptor: &ServiceDescriptor) {
    for warning in &descriptor.warnings {
        warn!(process.id = %descriptor.id, code = warning.code, "{}, {warning}", descriptor.source.display());
    }
    if let Ok(located) = program::resolve(descriptor)
        && program::is_writable_by_others(&located.program)
    {
        warn!(
            process.id = %descriptor.id,
            "every user of this host can replace {}; chmod o-w it and its folder",
            located.program.display()
        );
    }
}

/// A file whose content is not taken over yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    stamp: Option<Stamp>,
    since: Instant,
}

/// The state of the watching task.
struct Keeper {
    settings: WatchSettings,
    catalog: Catalog,
    taken: BTreeMap<PathBuf, Stamp>,
    pending: BTreeMap<PathBuf, Pending>,
    held_at: Instant,
    first: bool,
    lost: bool,
}

impl Keeper {
    fn new(settings: WatchSettings) -> Self {
        Self {
            settings,
            catalog: Catalog::default(),
            taken: BTreeMap::new(),
            pending: BTreeMap::new(),
            held_at: Instant::now(),
            first: true,
            lost: false,
        }
    }

    fn look(&mut self, told: bool) -> Vec<CatalogChange> {
        let listing = match list(&self.settings.roots, &self.settings.exclude) {
            Ok(listing) => listing,
            Err((folder, error)) => {
                // A folder that cannot be read for a moment (a share that is remounted) must not take all services away.
                if !self.lost {
                    warn!("{} cannot be read: {error}; the last offer stays", folder.display());
                }
                self.lost = true;
                return Vec::new();
            }
        };
        self.lost = false;
        let now = Instant::now();
        self.note(&listing, now);
        let ready: Vec<(PathBuf, Pending)> = self
            .pending
            .iter()
            .filter(|(_, pending)| self.first || now.duration_since(pending.since) >= STILL)
            .map(|(path, pending)| (path.clone(), *pending))
            .collect();
        let mut taken = false;
        for (path, pending) in ready {
            taken |= self.take(&path, pending, now);
        }
        let due = now.duration_since(self.held_at) >= RETRY_HELD;
        if !(taken || told || due) {
            return Vec::new();
        }
        self.first = false;
        self.held_at = now;
        self.catalog.settle(|descriptor| program::resolve(descriptor).map(drop))
    }

    /// Notes what differs from what was taken over, and since when it has been as it is.
    fn note(&mut self, listing: &BTreeMap<PathBuf, Stamp>, now: Instant) {
        for (path, stamp) in listing {
            self.note_one(path, Some(*stamp), now);
        }
        let gone: Vec<PathBuf> = self
            .taken
            .keys()
            .chain(self.pending.keys())
            .filter(|path| !listing.contains_key(*path))
            .cloned()
            .collect();
        for path in gone {
            self.note_one(&path, None, now);
        }
    }

    fn note_one(&mut self, path: &Path, stamp: Option<Stamp>, now: Instant) {
        if self.taken.get(path).copied() == stamp {
            self.pending.remove(path);
            return;
        }
        match self.pending.get(path) {
            Some(pending) if pending.stamp == stamp => {}
            _ => {
                self.pending.insert(path.to_path_buf(), Pending { stamp, since: now });
            }
        }
    }

    /// Takes a file over that has not changed for a while; `false` = not yet.
    fn take(&mut self, path: &Path, pending: Pending, now: Instant) -> bool {
        let Some(stamp) = pending.stamp else {
            self.catalog.put(path, None, &self.settings.context);
            self.taken.remove(path);
            self.pending.remove(path);
            return true;
        };
        let bytes = match read(path, stamp) {
            Ok(bytes) => bytes,
            Err(error) => {
                debug!("{} cannot be read yet: {error}", path.display());
                return false;
            }
        };
        if Stamp::of(path) != Some(stamp) {
            return false;
        }
        let young = now.duration_since(pending.since) < STILL_BROKEN;
        if young && !self.first && Catalog::would_break(path, &bytes, &self.settings.context) {
            return false;
        }
        self.catalog.put(path, Some(&bytes), &self.settings.context);
        self.taken.insert(path.to_path_buf(), stamp);
        self.pending.remove(path);
        true
    }
}

/// The bytes of a file; of one that is too large only so many that the reader refuses it.
fn read(path: &Path, stamp: Stamp) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let most = wps_remote_protocol::ini::MAX_FILE as u64 + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(stamp.bytes.min(most)).unwrap_or_default());
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
