//! What the driver says about itself: to operators on the same host, and in one line to the service manager.

use std::sync::Arc;

use tracing::info;

use super::Driver;
use crate::config::AgentConfig;
use crate::control::{Answer, Asked, JobReport, JobState, Order, Report};
use crate::engine::{Actions, Phase, Settings};
use crate::service::News;
use crate::session::Trusted;

impl Driver {
    /// Carries out what an operator has asked for. A reload is not for the driver: it reads no files.
    pub(super) fn order(&mut self, asked: Asked) {
        if let Order::Drain { on } = asked.order {
            let mut out = Actions::new();
            self.engine.drain(on, &mut out);
            // An operator who waits for it should not wait for the regular heartbeat.
            self.announce = true;
            self.perform(out);
            self.tell_manager();
        }
        // An operator who has gone does not want to know.
        let _ = asked.reply.send(Answer::Report(Box::new(self.report())));
    }

    /// Takes over what of a configuration can change at any time.
    pub(super) fn configure(&mut self, config: &Arc<AgentConfig>) {
        self.manner.grace = config.kill_grace;
        self.session.trust(Trusted::from(config.as_ref()));
        let mut out = Actions::new();
        self.engine.configure(Settings::from(config.as_ref()), &mut out);
        self.perform(out);
        info!(capacity = config.capacity, load_threshold = config.load_threshold, "new settings hold");
    }

    fn report(&self) -> Report {
        let jobs = self.engine.view().map(|view| {
            let (state, percent) = match view.phase {
                Phase::Starting => (JobState::Starting, None),
                Phase::Running(percent) => (JobState::Running, percent),
                Phase::Ended => (JobState::Ended, None),
            };
            JobReport {
                execution: view.id.clone(),
                process: view.process.clone(),
                orchestrator: view.originator.to_string(),
                state,
                percent,
                weight: view.weight,
                accepted_ms: self.live.get(view.id).map(|live| live.accepted_ms),
            }
        });
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            nick: self.session.nick().to_owned(),
            uptime_s: self.begun.elapsed().as_secs(),
            orchestrators: self.engine.subscribers().map(ToString::to_string).collect(),
            draining: self.engine.draining(),
            load: self.engine.load(),
            processes: self.engine.processes().cloned().collect(),
            jobs: jobs.collect(),
        }
    }

    /// Tells the service manager one line, if it has changed.
    pub(super) fn tell_manager(&mut self) {
        let line = self.status_line();
        if line != self.told {
            self.service.tell(News::Status(&line));
            self.told = line;
        }
    }

    fn status_line(&self) -> String {
        let live = self.engine.live();
        let waiting = self.engine.held().len() - live;
        let mut line = match self.engine.subscribers().count() {
            0 => "no orchestrator is there".to_owned(),
            1 => "serving one orchestrator".to_owned(),
            many => format!("serving {many} orchestrators"),
        };
        line += &format!("; {} processes offered, {live} jobs running", self.engine.processes().count());
        if waiting > 0 {
            line += &format!(", {waiting} endings not taken yet");
        }
        if self.engine.draining() {
            line += "; draining";
        } else if let Some(refusing) = self.engine.load().refusing {
            line += &format!("; takes no new work: {:?}", refusing.reason).to_lowercase();
        }
        line
    }
}
