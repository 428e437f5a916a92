//! Reads `remote.config` again while the agent runs: what can change takes effect, what cannot is named, and a file with
//! faults changes nothing.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::config;
use crate::config::{AgentConfig, differences};
use crate::control::{Answer, Asked, Reloaded};
use crate::engine::Settings;
use crate::service::{News, Service};
use crate::session::Trusted;

/// What a reload works on.
pub(crate) struct Reload {
    /// As the agent was started.
    pub(crate) started: Arc<AgentConfig>,
    /// What holds now; its receivers take from it what they can change.
    pub(crate) current: watch::Sender<Arc<AgentConfig>>,
    /// The manager of services.
    pub(crate) service: Service,
    /// What operators ask for.
    pub(crate) orders: mpsc::Receiver<Asked>,
}

impl Reload {
    /// Reloads whenever it is asked for, by the service manager, a signal or an operator.
    pub(crate) async fn run(mut self) {
        loop {
            let reply = tokio::select! {
                () = self.service.reload_asked() => None,
                Some(asked) = self.orders.recv() => Some(asked.reply),
            };
            self.service.tell(News::Reloading);
            let answer = self.again().await;
            self.service.tell(News::Ready);
            if let Some(reply) = reply {
                // An operator who has gone does not want to know.
                let _ = reply.send(answer);
            }
        }
    }

    async fn again(&mut self) -> Answer {
        let source = self.started.source.clone();
        let read = spawn_blocking(move || AgentConfig::load(&source)).await;
        let new = match read {
            Ok(Ok(new)) => new,
            Ok(Err(fault)) => {
                error!("nothing is reloaded, the former configuration stays: {fault}");
                return Answer::Failed(fault.to_string());
            }
            Err(panic) => return Answer::Failed(panic.to_string()),
        };
        for warning in &new.warnings {
            warn!("{}, {warning}", new.source.display());
        }
        let before = self.current.borrow().clone();
        let found = differences(&self.started, &before, &new);
        if !found.live.is_empty() {
            self.current.send_replace(Arc::new(new));
        }
        info!("configuration read again; changed: {}", or_nothing(&found.live));
        if !found.restart.is_empty() {
            warn!("these keys have changed and take effect after a restart: {}", found.restart.join(", "));
        }
        let owned = |keys: Vec<&'static str>| keys.into_iter().map(str::to_owned).collect();
        Answer::Reloaded(Reloaded { applied: owned(found.live), restart: owned(found.restart) })
    }
}

fn or_nothing(keys: &[&str]) -> String {
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}

impl From<&AgentConfig> for Settings {
    fn from(config: &AgentConfig) -> Self {
        Self {
            capacity: config.capacity,
            max_running: config.max_parallel_jobs,
            load_threshold: config.load_threshold,
            labels: config.labels.clone(),
            keep_endings: config.retention,
            cores: std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        }
    }
}

impl From<&AgentConfig> for Trusted {
    fn from(config: &AgentConfig) -> Self {
        match &config.trusted {
            config::Trusted::Moderators => Self::Moderators,
            config::Trusted::Addresses(list) => Self::Listed(list.clone()),
            config::Trusted::Anyone => Self::Anyone,
        }
    }
}
