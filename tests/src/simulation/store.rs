//! The shared job store as a table in memory, with the contract of `wps_orchestrator::store`: leases, owners, adoption, older
//! versions that never replace newer ones, final jobs that never change. `tests/simulation.rs` holds it against the real one.

use std::collections::BTreeMap;

use wps_orchestrator::engine::job::{Job, JobId};
use wps_orchestrator::store::{Lease, Node};

/// One stored job.
#[derive(Debug, Clone)]
pub struct Row {
    /// The job.
    pub job: Job,
    /// Its owner's node, which may not be there any more.
    pub node: i64,
    /// A client of another node gives it up.
    pub dismiss: bool,
}

/// Why nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The database cannot be reached, or broke in the middle.
    Unreachable,
    /// The lease is over.
    Fenced,
}

/// The table.
#[derive(Debug, Default)]
pub struct Store {
    nodes: BTreeMap<i64, Node>,
    last_id: i64,
    /// All jobs.
    pub rows: BTreeMap<JobId, Row>,
}

impl Store {
    /// The node of this name is in service, in a new generation.
    pub fn enter(&mut self, name: &str, alone: bool) -> Lease {
        let known = self.nodes.values_mut().find(|node| node.name == name);
        let lease = match known {
            Some(node) => {
                node.generation += 1;
                node.beat += 1;
                Lease { id: node.id, generation: node.generation }
            }
            None => self.insert(name),
        };
        if alone {
            self.nodes.retain(|id, _| *id == lease.id);
            self.rows
                .values_mut()
                .filter(|row| !row.job.state.is_final())
                .for_each(|row| row.node = lease.id);
        }
        lease
    }

    fn insert(&mut self, name: &str) -> Lease {
        self.last_id += 1;
        let node = Node { id: self.last_id, name: name.to_owned(), generation: 1, beat: 0 };
        self.nodes.insert(node.id, node);
        Lease { id: self.last_id, generation: 1 }
    }

    /// The same as a node without jobs; `None` = the name is taken.
    pub fn enter_again(&mut self, name: &str) -> Option<Lease> {
        (!self.nodes.values().any(|node| node.name == name)).then(|| self.insert(name))
    }

    /// Whether a lease still holds.
    pub fn holds(&self, lease: Lease) -> bool {
        self.nodes.get(&lease.id).is_some_and(|node| node.generation == lease.generation)
    }

    /// A sign of life; all nodes.
    pub fn beat(&mut self, lease: Lease) -> Result<Vec<Node>, Failed> {
        match self.nodes.get_mut(&lease.id).filter(|node| node.generation == lease.generation) {
            Some(node) => node.beat += 1,
            None => return Err(Failed::Fenced),
        }
        Ok(self.nodes.values().cloned().collect())
    }

    /// Declares a node dead, if nothing was heard of it since.
    pub fn bury(&mut self, node: &Node) -> bool {
        let same = self.nodes.get(&node.id) == Some(node);
        if same {
            self.nodes.remove(&node.id);
        }
        same
    }

    /// Gives all jobs up.
    pub fn leave(&mut self, lease: Lease) {
        if self.holds(lease) {
            self.nodes.remove(&lease.id);
        }
    }

    fn oldest(&self, of: impl Fn(&Row) -> bool) -> Vec<JobId> {
        let mut found: Vec<_> =
            self.rows.values().filter(|row| !row.job.state.is_final() && of(row)).collect();
        found.sort_by_key(|row| (row.job.created, row.job.id));
        found.iter().map(|row| row.job.id).collect()
    }

    /// Jobs of this node that have not ended.
    pub fn active(&self, lease: Lease) -> Vec<Job> {
        let ids = self.oldest(|row| row.node == lease.id);
        ids.iter().map(|id| self.rows[id].job.clone()).collect()
    }

    /// Takes jobs over that have no owner.
    pub fn adopt(&mut self, lease: Lease, limit: usize) -> Vec<Job> {
        if !self.holds(lease) {
            return Vec::new();
        }
        let mut ids = self.oldest(|row| !self.nodes.contains_key(&row.node));
        ids.truncate(limit);
        for id in &ids {
            if let Some(row) = self.rows.get_mut(id) {
                row.node = lease.id;
            }
        }
        ids.iter().map(|id| self.rows[id].job.clone()).collect()
    }

    /// A client of another node gives a job up.
    pub fn ask_dismissal(&mut self, id: JobId) {
        if let Some(row) = self.rows.get_mut(&id).filter(|row| !row.job.state.is_final()) {
            row.dismiss = true;
        }
    }

    /// Jobs of this node that clients of others give up.
    pub fn asked_dismissals(&self, lease: Lease) -> Vec<JobId> {
        let asked = |row: &Row| row.node == lease.id && row.dismiss && row.job.state.name() != "dismissing";
        self.oldest(asked)
    }

    /// Stores all, or none. Rows of others and older versions are left alone.
    pub fn save(&mut self, lease: Lease, jobs: &[Job]) -> Result<(), Failed> {
        if !self.holds(lease) {
            return Err(Failed::Fenced);
        }
        for job in jobs {
            match self.rows.get_mut(&job.id) {
                None => {
                    self.rows.insert(job.id, Row { job: job.clone(), node: lease.id, dismiss: false });
                }
                Some(row) => {
                    if row.job.version < job.version && !row.job.state.is_final() && row.node == lease.id {
                        row.job = job.clone();
                    }
                }
            }
        }
        let foreign = |job: &Job| {
            self.rows.get(&job.id).is_some_and(|row| row.node != lease.id && !row.job.state.is_final())
        };
        if jobs.iter().any(foreign) { Err(Failed::Fenced) } else { Ok(()) }
    }

    /// The live execution of a job, as it is stored.
    pub fn load(&self, id: JobId) -> Option<&Job> {
        self.rows.get(&id).map(|row| &row.job)
    }

    /// What a store without leases would do.
    pub fn save_as_anybody(&mut self, lease: Lease, jobs: &[Job]) -> Result<(), Failed> {
        for job in jobs {
            self.rows.insert(job.id, Row { job: job.clone(), node: lease.id, dismiss: false });
        }
        Ok(())
    }

    /// Forgets a job.
    pub fn remove(&mut self, id: JobId) {
        self.rows.remove(&id);
    }
}
