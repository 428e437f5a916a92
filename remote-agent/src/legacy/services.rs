//! Sessions of services: they come and go with what is offered, register with whoever invites, tell the load, and take
//! requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use wps_remote_protocol::legacy::{
    self, InputsError, LegacyLoad, LegacyRequest, Order, Report, from_pickle, master_resource,
};
use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{ExecutionId, Load, ProcessId, Refusal, Request};

use super::{Asked, Effect, Heard, Job, Machine, Offer, Who};
use crate::engine::Peer;

/// What is told of a host that takes nothing for a reason that its load does not show: GeoServer gives work to whom the
/// figures are low.
const FULL: f64 = 100.0;

impl Machine {
    /// What is offered is now this.
    pub fn offer(&mut self, offers: Vec<Offer>) {
        let new: BTreeMap<ProcessId, Arc<Offer>> =
            offers.into_iter().map(|offer| (offer.id().clone(), Arc::new(offer))).collect();
        let old = std::mem::replace(&mut self.offers, new.clone());
        for (id, offer) in &new {
            let who = Who::Service(id.clone());
            match old.get(id) {
                None => self.open_service(id),
                Some(before) if before.registration != offer.registration => {
                    // GeoServer keeps the first registration that it gets, until it is told that there is none.
                    for nick in self.known_to(&who) {
                        self.say(who.clone(), &nick, Report::Unregister(None).encode());
                        self.register(id, &nick);
                    }
                }
                Some(_) => {}
            }
        }
        for id in old.keys().filter(|id| !new.contains_key(*id)) {
            // The occupant that leaves takes its registration with it.
            let who = Who::Service(id.clone());
            self.out(&who);
            self.effects.push(Effect::Close(who));
        }
    }

    fn open_service(&mut self, id: &ProcessId) {
        // The plugin reads nothing of the resource itself, but two services of one account need two.
        let host = &self.settings.host;
        let resource = format!("master-{}-{}@{host}", id.namespace(), id.name());
        let nick = legacy::nick(id.name(), &self.settings.domain, &master_resource(host));
        self.effects.push(Effect::Open {
            who: Who::Service(id.clone()),
            namespace: id.namespace().to_owned(),
            resource,
            nick,
        });
    }

    /// Those that a session sees and that have given orders, by their names.
    fn known_to(&self, who: &Who) -> Vec<String> {
        let known = self.present.iter().filter(|(_, there)| there.known && there.seen_by.contains(who));
        let mut nicks: Vec<String> = known.map(|(peer, _)| super::nick_of(peer).to_owned()).collect();
        nicks.sort();
        nicks
    }

    fn register(&mut self, service: &ProcessId, nick: &str) {
        if let Some(offer) = self.offers.get(service) {
            let body = Report::Register(Box::new(offer.registration.clone())).encode();
            self.say(Who::Service(service.clone()), nick, body);
        }
    }

    pub(super) fn service_order(&mut self, service: &ProcessId, peer: &Peer, nick: &str, order: Order) {
        match order {
            Order::Invite => self.register(service, nick),
            Order::GetLoad => {
                let asked = Asked { service: service.clone(), nick: nick.to_owned(), execution: None };
                self.effects.push(Effect::Tell(Heard::GetLoad(asked)));
            }
            Order::Request(request) => self.request(service, peer, nick, request),
            // They name no job; the Python agent's service process ignores them too.
            Order::Finish | Order::Abort => {}
        }
    }

    fn request(&mut self, service: &ProcessId, peer: &Peer, nick: &str, request: LegacyRequest) {
        let who = Who::Service(service.clone());
        let LegacyRequest { execution, base_url, inputs } = request;
        let error = |text: String| Report::Error { execution: execution.clone(), text }.encode();
        if !self.settings.pickle {
            let text = "this agent reads no pickled requests: `legacy_pickle` is off in its remote.config";
            return self.say(who, nick, error(text.to_owned()));
        }
        let description = self.offers.get(service).map(|offer| &offer.description);
        let inputs = match from_pickle(&inputs, description) {
            Ok(inputs) => inputs,
            Err(fault @ (InputsError::NotText(_) | InputsError::File(_) | InputsError::Kind(_))) => {
                return self.say(who, nick, error(fault.to_string()));
            }
        };
        if !self.jobs.contains_key(&execution) {
            let job = Job::new(service.clone(), peer.clone(), base_url.clone());
            self.jobs.insert(execution.clone(), job);
        }
        let asked =
            Asked { service: service.clone(), nick: nick.to_owned(), execution: Some(execution.clone()) };
        let request = Request { execution, process: service.clone(), inputs, base_url };
        self.effects.push(Effect::Tell(Heard::Request(peer.clone(), Box::new(request), asked)));
    }

    /// A request is not taken. Capacity and the like pass with time, and the plugin puts the job back into its queue; of the
    /// rest it must hear as of a failure.
    pub fn refused(&mut self, asked: &Asked, refusal: &Refusal) {
        let Some(execution) = asked.execution.clone() else { return };
        // A job that runs, for somebody else or already, goes on.
        if self.jobs.get(&execution).is_some_and(Job::is_asked) {
            self.jobs.remove(&execution);
        }
        self.say_refusal(&asked.service, &asked.nick, execution, refusal);
    }

    /// A request that was still being looked at is not taken.
    pub fn refused_later(&mut self, execution: &ExecutionId, refusal: &Refusal) {
        let Some(job) = self.jobs.get(execution) else { return };
        let (service, nick) = (job.process.clone(), super::nick_of(&job.peer).to_owned());
        self.forget(execution);
        self.say_refusal(&service, &nick, execution.clone(), refusal);
    }

    fn say_refusal(&mut self, service: &ProcessId, nick: &str, execution: ExecutionId, refusal: &Refusal) {
        let body = match refusal.reason {
            RefusalReason::Capacity
            | RefusalReason::Load
            | RefusalReason::Blacklist
            | RefusalReason::Draining => Report::CannotExecute { execution },
            RefusalReason::NoSuchProcess | RefusalReason::Undeliverable => {
                Report::Error { execution, text: refusal.text.clone() }
            }
        };
        self.say(Who::Service(service.clone()), nick, body.encode());
    }

    /// The answer to a question for the load.
    pub fn tell_load(&mut self, asked: &Asked, load: &Load) {
        let hidden = load.refusing.as_ref().is_some_and(|refusal| {
            matches!(refusal.reason, RefusalReason::Blacklist | RefusalReason::Draining)
        });
        let told = if hidden {
            LegacyLoad { cpu_percent: FULL, memory_percent: FULL }
        } else {
            LegacyLoad { cpu_percent: load.cpu_percent, memory_percent: load.memory_percent }
        };
        self.say(Who::Service(asked.service.clone()), &asked.nick, Report::Load(told).encode());
    }
}
