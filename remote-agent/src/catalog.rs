//! The descriptors of a watched folder: which are offered, which are held back, which are broken. Compares what is with
//! what was and says what changed. A broken edit keeps the last good version. Reads no folder itself (see [`watch`]).

mod listing;
#[cfg(test)]
mod tests;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::task::JoinSet;
use wps_remote_protocol::ProcessId;
use wps_remote_protocol::ini::{Finding, IniError};

use crate::command::Held;
use crate::config::AgentConfig;
use crate::descriptor::load::hash;
use crate::descriptor::{LoadContext, Loaded, ServiceDescriptor, load};

/// Why a folder cannot be watched.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// It is not there, or cannot be looked into.
    #[error("services cannot be read from {}: {source} (`services_dir`, or --services)", path.display())]
    NoFolder {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Offers what an agent's services folder holds, or the given folders and files instead. The task that watches is added
/// to `helpers` and ends with them.
pub fn start(
    config: &AgentConfig,
    services: &[PathBuf],
    helpers: &mut JoinSet<()>,
) -> Result<tokio::sync::watch::Receiver<Vec<Arc<ServiceDescriptor>>>, CatalogError> {
    let roots = if services.is_empty() { vec![config.services_dir.clone()] } else { services.to_vec() };
    let own = [&config.work_root, &config.resource_file_dir].into_iter().chain(&config.shared_dir);
    let settings =
        watch::WatchSettings { roots, exclude: own.cloned().collect(), context: config.load_context() };
    let (watched, task) = watch::watch(settings)?;
    helpers.spawn(task);
    Ok(watched.offers)
}

/// What happened to the offer.
#[derive(Debug, Clone)]
pub enum CatalogChange {
    /// A process is offered that was not.
    Added(Arc<ServiceDescriptor>),
    /// A process is offered in another form.
    Changed(Arc<ServiceDescriptor>),
    /// A process is not offered any more.
    Removed(ProcessId),
    /// A file cannot be used; `kept` is still offered in its last good version.
    Broken {
        /// Why.
        error: IniError,
        /// What it offered before.
        kept: Option<ProcessId>,
    },
    /// A file is fine, but its program cannot be started on this host.
    Held {
        /// What it would offer.
        id: ProcessId,
        /// The file.
        file: PathBuf,
        /// The line that names the program.
        line: usize,
        /// Why not.
        held: Held,
    },
    /// Two files offer the same process; the second one is left out.
    Duplicate {
        /// What both offer.
        id: ProcessId,
        /// The file that counts.
        first: PathBuf,
        /// The file that is left out.
        second: PathBuf,
    },
    /// A file is fine but switched off.
    Inactive {
        /// What it would offer.
        id: ProcessId,
        /// The file.
        file: PathBuf,
    },
}

/// What one file is.
#[derive(Debug)]
struct Entry {
    hash: String,
    good: Option<Arc<ServiceDescriptor>>,
    broken: Option<IniError>,
}

/// The watched folder as it was last seen.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<PathBuf, Entry>,
    offered: BTreeMap<ProcessId, Arc<ServiceDescriptor>>,
    /// What was said about files already, so that it is said once.
    said: BTreeSet<String>,
}

impl Catalog {
    /// Whether a file's bytes would be broken as a descriptor, without taking them over.
    pub fn would_break(path: &Path, bytes: &[u8], context: &LoadContext) -> bool {
        matches!(load(path, bytes, context), Loaded::Broken(_))
    }

    /// Takes over the content of a file; `None` = it is gone. What follows from it is told by [`settle`](Self::settle).
    pub fn put(&mut self, path: &Path, bytes: Option<&[u8]>, context: &LoadContext) {
        let Some(bytes) = bytes else {
            self.files.remove(path);
            return;
        };
        let hash = hash(bytes);
        let before = self.files.get(path);
        if before.is_some_and(|entry| entry.hash == hash) {
            return;
        }
        let last_good = before.and_then(|entry| entry.good.clone());
        let entry = match load(path, bytes, context) {
            Loaded::Descriptor(descriptor) => Entry { hash, good: Some(Arc::new(*descriptor)), broken: None },
            Loaded::Broken(error) => Entry { hash, good: last_good, broken: Some(error) },
            // A descriptor that lost all its marks is an edit gone wrong, not another kind of file.
            Loaded::Other if last_good.is_some() => {
                let why = "is not a service descriptor any more: the key `service` is gone";
                let finding =
                    Finding::error("not-a-descriptor", why).remedy("put it back, or remove the file");
                let error = IniError { file: path.to_string_lossy().into_owned(), findings: vec![finding] };
                Entry { hash, good: last_good, broken: Some(error) }
            }
            Loaded::Other => Entry { hash, good: None, broken: None },
        };
        self.files.insert(path.to_path_buf(), entry);
    }

    /// Works out what is offered now and what changed. `find` says whether a descriptor's program can be started.
    pub fn settle(&mut self, find: impl Fn(&ServiceDescriptor) -> Result<(), Held>) -> Vec<CatalogChange> {
        let mut changes = Vec::new();
        let mut said = BTreeSet::new();
        let mut offered: BTreeMap<ProcessId, Arc<ServiceDescriptor>> = BTreeMap::new();
        let mut owners: BTreeMap<ProcessId, PathBuf> = BTreeMap::new();
        let work: Vec<PathBuf> = self.work_folders();
        for (path, entry) in &self.files {
            // Jobs must not be able to add services: what lies in a run directory is never a descriptor.
            if work.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            if let Some(error) = &entry.broken {
                let kept = entry.good.as_ref().map(|good| good.id.clone());
                let change = CatalogChange::Broken { error: error.clone(), kept };
                self.say(
                    &mut said,
                    format!("broken {} {}", path.display(), entry.hash),
                    change,
                    &mut changes,
                );
            }
            let Some(good) = &entry.good else { continue };
            if let Some(first) = owners.get(&good.id) {
                let change = CatalogChange::Duplicate {
                    id: good.id.clone(),
                    first: first.clone(),
                    second: path.clone(),
                };
                let key = format!("duplicate {} {} {}", good.id, first.display(), path.display());
                self.say(&mut said, key, change, &mut changes);
                continue;
            }
            if !good.active {
                let change = CatalogChange::Inactive { id: good.id.clone(), file: path.clone() };
                self.say(&mut said, format!("inactive {}", path.display()), change, &mut changes);
                continue;
            }
            owners.insert(good.id.clone(), path.clone());
            match find(good) {
                Ok(()) => {
                    offered.insert(good.id.clone(), good.clone());
                }
                Err(held) => {
                    let key = format!("held {} {held}", path.display());
                    let line = good.program.line;
                    let change = CatalogChange::Held { id: good.id.clone(), file: path.clone(), line, held };
                    self.say(&mut said, key, change, &mut changes);
                }
            }
        }
        let gone = self.offered.keys().filter(|id| !offered.contains_key(*id));
        changes.extend(gone.cloned().map(CatalogChange::Removed));
        for (id, now) in &offered {
            match self.offered.get(id) {
                None => changes.push(CatalogChange::Added(now.clone())),
                Some(before) if before.hash != now.hash || before.source != now.source => {
                    changes.push(CatalogChange::Changed(now.clone()));
                }
                Some(_) => {}
            }
        }
        self.offered = offered;
        self.said = said;
        changes
    }

    fn say(
        &self,
        said: &mut BTreeSet<String>,
        key: String,
        change: CatalogChange,
        changes: &mut Vec<CatalogChange>,
    ) {
        if !self.said.contains(&key) {
            changes.push(change);
        }
        said.insert(key);
    }

    /// Parents of run directories below the watched folder. A descriptor that lies in its own `output_dir` does not
    /// count, or one could put others out of sight.
    fn work_folders(&self) -> Vec<PathBuf> {
        let good = self.files.values().filter_map(|entry| entry.good.as_ref());
        let folders = good.filter(|good| !good.source.starts_with(&good.output_dir));
        folders.map(|good| good.output_dir.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What is offered, in the order of process identifiers.
    pub fn offers(&self) -> Vec<Arc<ServiceDescriptor>> {
        self.offered.values().cloned().collect()
    }

    /// The files that are known.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }
}
