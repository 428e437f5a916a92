//! How much each user may ask for: the sections `[limits]`, `[role …]`, `[user …]` and `[process …]` of the configuration, and
//! what they mean for one job. Pure: knows neither jobs nor clients; who has which role is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wps_remote_protocol::ProcessId;

use crate::engine::job::{Size, Span, Terms, UserId};

pub use crate::engine::job::{Bound, Scope};

/// Most jobs of one user that run, unless something says otherwise.
pub const MAX_RUNNING_PER_USER: u32 = 4;
/// Most jobs of one user that wait, unless something says otherwise.
pub const MAX_QUEUED_PER_USER: u32 = 20;

/// What one section says; `None` = nothing, 0 = no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Section {
    /// Most jobs that run: of all together, of everybody with the role, of the user, of the process.
    pub max_running: Option<u32>,
    /// Most jobs that wait, of the same.
    pub max_queued: Option<u32>,
    /// Most jobs of each user that run (of the process, there).
    pub max_running_per_user: Option<u32>,
    /// Most jobs of each user that wait (for the process, there).
    pub max_queued_per_user: Option<u32>,
    /// Largest request, in bytes.
    pub max_request: Option<u64>,
    /// Largest input in a request, in bytes.
    pub max_input_inline: Option<u64>,
    /// Largest input by reference, in bytes.
    pub max_input_reference: Option<u64>,
    /// Most that a job gives out, in bytes.
    pub max_output: Option<u64>,
    /// Most that is kept for each user, in bytes.
    pub max_stored: Option<u64>,
    /// Most jobs that are kept for each user.
    pub max_stored_jobs: Option<u32>,
    /// Longest wait of a synchronous request, in milliseconds.
    pub sync_timeout: Option<u64>,
    /// Longest time in the queue, in milliseconds.
    pub max_queue_time: Option<u64>,
    /// Longest time of a program, in milliseconds.
    pub max_run_time: Option<u64>,
    /// Longest time of both, in milliseconds.
    pub max_total_time: Option<u64>,
    /// Share among those that wait.
    pub weight: Option<u32>,
    /// What goes first.
    pub priority: Option<i32>,
    /// Labels that agents must have.
    pub needs: Vec<String>,
}

/// A name of a section `[process …]`: an identifier with `*` for any run of characters.
type Fits = fn(&str, &str) -> bool;

/// All limits of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitRules {
    /// What holds for everybody.
    pub general: Section,
    /// By name of the role.
    pub roles: BTreeMap<String, Section>,
    /// By name of the user.
    pub users: BTreeMap<String, Section>,
    /// By pattern, the most precise one first.
    pub processes: Vec<(String, Section)>,
    /// Roles that run the service: the limits for every user do not bind them, unless their sections say so.
    pub operators: BTreeSet<String>,
}

/// Who asks, as far as limits are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The user.
    pub user: &'a UserId,
    /// Its first role, if it has one.
    pub role: Option<&'a str>,
}

/// A value and where it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<T> {
    /// The value.
    pub value: T,
    /// Where it is set, such as `[role guest] max_output_mb`.
    pub setting: String,
}

impl LimitRules {
    /// The sections that say something about somebody and a process, the strongest first, each with its name.
    fn sections<'a>(&'a self, who: Who<'_>, process: Option<&str>) -> Vec<(String, &'a Section)> {
        let mut found = Vec::new();
        if let Some(section) = self.users.get(&who.user.0) {
            found.push((format!("[user {}]", who.user.0), section));
        }
        for (name, section) in self.of_process(process) {
            found.push((format!("[process {name}]"), section));
        }
        if let Some((role, section)) = who.role.and_then(|role| Some((role, self.roles.get(role)?))) {
            found.push((format!("[role {role}]"), section));
        }
        found.push(("[limits]".to_owned(), &self.general));
        found
    }

    fn of_process<'a, 'b>(
        &'a self,
        process: Option<&'b str>,
    ) -> impl Iterator<Item = (&'a str, &'a Section)> + use<'a, 'b> {
        let fits: Fits = |pattern, name| crate::access::Pattern::new(pattern).fits(name);
        let all = process.into_iter().flat_map(|_| &self.processes);
        all.filter(move |(pattern, _)| process.is_some_and(|name| fits(pattern, name)))
            .map(|(pattern, section)| (pattern.as_str(), section))
    }

    /// The first value that is set, and where; 0 = none.
    fn first(
        sections: &[(String, &Section)],
        key: &str,
        of: impl Fn(&Section) -> Option<u64>,
    ) -> Option<Set<u64>> {
        let (name, value) = sections.iter().find_map(|(name, section)| Some((name, of(section)?)))?;
        (value > 0).then(|| Set { value, setting: format!("{name} {key}") })
    }

    /// The terms for one job.
    pub fn terms(&self, who: Who<'_>, process: &ProcessId) -> Arc<Terms> {
        let process = process.to_string();
        let sections = self.sections(who, Some(&process));
        let span = |key: &str, of: fn(&Section) -> Option<u64>| {
            Self::first(&sections, key, of).map(|set| Span { ms: set.value, setting: set.setting })
        };
        let mut needs: Vec<String> =
            sections.iter().flat_map(|(_, section)| section.needs.iter().cloned()).collect();
        needs.sort();
        needs.dedup();
        let queue_time = sections.iter().find_map(|(name, section)| {
            let ms = section.max_queue_time?;
            Some(Span { ms, setting: format!("{name} max_queue_time_s") })
        });
        Arc::new(Terms {
            weight: sections.iter().find_map(|(_, section)| section.weight).unwrap_or(1),
            priority: sections.iter().find_map(|(_, section)| section.priority).unwrap_or(0),
            needs,
            running: self.bounds(
                who,
                Some(&process),
                "running",
                |s| s.max_running,
                |s| s.max_running_per_user,
            ),
            queued: self.bounds(who, Some(&process), "queued", |s| s.max_queued, |s| s.max_queued_per_user),
            queue_time,
            run_time: span("max_run_time_s", |s| s.max_run_time),
            total_time: span("max_total_time_s", |s| s.max_total_time),
            output: Self::first(&sections, "max_output_mb", |s| s.max_output)
                .map(|set| Size { bytes: set.value, setting: set.setting }),
        })
    }

    fn bounds(
        &self,
        who: Who<'_>,
        process: Option<&str>,
        what: &str,
        max: fn(&Section) -> Option<u32>,
        per_user: fn(&Section) -> Option<u32>,
    ) -> Vec<Bound> {
        let mut bounds = Vec::new();
        let mut add = |scope: Scope, max: Option<u32>, setting: String| {
            if let Some(max) = max.filter(|max| *max > 0) {
                bounds.push(Bound { scope, max, setting });
            }
        };
        let user = || Scope::User(who.user.clone());
        // The queue as a whole is bounded by the engine.
        if what == "running" {
            add(Scope::All, max(&self.general), "[limits] max_running".to_owned());
        }
        let role = who.role.and_then(|role| Some((role, self.roles.get(role)?)));
        if let Some((role, section)) = role {
            add(Scope::Role(role.to_owned()), max(section), format!("[role {role}] max_{what}"));
        }
        for (name, section) in self.of_process(process) {
            add(Scope::Process(name.to_owned()), max(section), format!("[process {name}] max_{what}"));
            let each = Scope::UserProcess(who.user.clone(), name.to_owned());
            add(each, per_user(section), format!("[process {name}] max_{what}_per_user"));
        }
        // Of the user itself the strongest counts.
        let own = self.users.get(&who.user.0).and_then(max);
        let of_role = role.and_then(|(_, section)| per_user(section));
        // Callers without a login are many behind one name, and operators look after themselves.
        let operator = who.role.is_some_and(|role| self.operators.contains(role));
        let exempt = operator || who.user.is_anonymous();
        match (own, of_role) {
            (Some(own), _) => add(user(), Some(own), format!("[user {}] max_{what}", who.user.0)),
            (None, Some(of_role)) => {
                let role = who.role.unwrap_or_default();
                add(user(), Some(of_role), format!("[role {role}] max_{what}_per_user"));
            }
            (None, None) if exempt => {}
            (None, None) => {
                let setting = format!("[limits] max_{what}_per_user");
                add(user(), per_user(&self.general), setting);
            }
        }
        bounds
    }

    /// What somebody may have running and waiting, whatever the process.
    pub fn of_user(&self, who: Who<'_>) -> (Vec<Bound>, Vec<Bound>) {
        (
            self.bounds(who, None, "running", |s| s.max_running, |s| s.max_running_per_user),
            self.bounds(who, None, "queued", |s| s.max_queued, |s| s.max_queued_per_user),
        )
    }

    /// The largest request that somebody may send, in bytes.
    pub fn request(&self, who: Who<'_>) -> Option<Set<u64>> {
        Self::first(&self.sections(who, None), "max_request_mb", |s| s.max_request)
    }

    /// The largest input in a request, in bytes.
    pub fn input_inline(&self, who: Who<'_>, process: &ProcessId) -> Option<Set<u64>> {
        let process = process.to_string();
        Self::first(&self.sections(who, Some(&process)), "max_input_inline_mb", |s| s.max_input_inline)
    }

    /// The largest input by reference, in bytes.
    pub fn input_reference(&self, who: Who<'_>, process: &ProcessId) -> Option<Set<u64>> {
        let process = process.to_string();
        Self::first(&self.sections(who, Some(&process)), "max_input_reference_mb", |s| s.max_input_reference)
    }

    /// How much is kept for a user, in bytes.
    pub fn stored(&self, who: Who<'_>) -> Option<Set<u64>> {
        Self::first(&self.sections(who, None), "max_stored_mb_per_user", |s| s.max_stored)
    }

    /// How many jobs are kept for a user.
    pub fn stored_jobs(&self, who: Who<'_>) -> Option<Set<u64>> {
        let of = |s: &Section| s.max_stored_jobs.map(u64::from);
        Self::first(&self.sections(who, None), "max_stored_jobs_per_user", of)
    }

    /// How long a synchronous request may wait, in milliseconds.
    pub fn sync_timeout(&self, who: Who<'_>, process: &ProcessId) -> Option<Set<u64>> {
        let process = process.to_string();
        Self::first(&self.sections(who, Some(&process)), "sync_timeout_s", |s| s.sync_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> LimitRules {
        let general = Section {
            max_running: Some(100),
            max_running_per_user: Some(MAX_RUNNING_PER_USER),
            max_queued_per_user: Some(MAX_QUEUED_PER_USER),
            max_queue_time: Some(9_000),
            max_output: Some(1 << 30),
            ..Section::default()
        };
        let guest = Section {
            max_running: Some(10),
            max_running_per_user: Some(1),
            max_output: Some(0),
            weight: Some(2),
            needs: vec!["public".to_owned()],
            ..Section::default()
        };
        let ann = Section { max_running: Some(7), priority: Some(3), ..Section::default() };
        let heavy = Section {
            max_running: Some(2),
            max_running_per_user: Some(1),
            max_run_time: Some(60_000),
            needs: vec!["gpu".to_owned()],
            ..Section::default()
        };
        LimitRules {
            general,
            roles: BTreeMap::from([("guest".to_owned(), guest)]),
            users: BTreeMap::from([("ann".to_owned(), ann)]),
            processes: vec![("demo:Heavy*".to_owned(), heavy)],
            operators: BTreeSet::from(["operator".to_owned()]),
        }
    }

    fn running(rules: &LimitRules, user: &str, role: Option<&str>, process: &str) -> Vec<String> {
        let user = UserId(user.to_owned());
        let terms = rules.terms(Who { user: &user, role }, &process.parse().unwrap());
        terms.running.iter().map(|bound| format!("{} = {}", bound.setting, bound.max)).collect()
    }

    #[test]
    fn the_strongest_section_counts_and_each_scope_has_its_own_bound() {
        let rules = rules();
        let everybody = "[limits] max_running = 100";
        assert_eq!(
            running(&rules, "bob", Some("user"), "demo:Echo"),
            [everybody, "[limits] max_running_per_user = 4"]
        );
        assert_eq!(
            running(&rules, "bob", Some("guest"), "demo:Heavy2"),
            [
                everybody,
                "[role guest] max_running = 10",
                "[process demo:Heavy*] max_running = 2",
                "[process demo:Heavy*] max_running_per_user = 1",
                "[role guest] max_running_per_user = 1"
            ]
        );
        assert_eq!(
            running(&rules, "ann", Some("user"), "demo:Echo"),
            [everybody, "[user ann] max_running = 7"]
        );
        assert_eq!(running(&rules, "root", Some("operator"), "demo:Echo"), [everybody]);
        assert_eq!(running(&rules, "anonymous", Some("user"), "demo:Echo"), [everybody]);
    }

    #[test]
    fn terms_name_where_they_come_from() {
        let rules = rules();
        let (ann, bob) = (UserId("ann".to_owned()), UserId("bob".to_owned()));
        let heavy = "demo:Heavy".parse().unwrap();
        let terms = rules.terms(Who { user: &bob, role: Some("guest") }, &heavy);
        assert_eq!(
            (terms.weight, terms.priority, &terms.needs[..]),
            (2, 0, &["gpu".into(), "public".into()][..])
        );
        assert_eq!(terms.output, None, "0 switches a limit off");
        let time = |span: &Option<Span>| span.as_ref().map(|span| (span.ms, span.setting.clone())).unwrap();
        assert_eq!(time(&terms.run_time), (60_000, "[process demo:Heavy*] max_run_time_s".into()));
        assert_eq!(time(&terms.queue_time), (9_000, "[limits] max_queue_time_s".into()));
        let echo = "demo:Echo".parse().unwrap();
        let terms = rules.terms(Who { user: &ann, role: None }, &echo);
        assert_eq!((terms.priority, terms.output.as_ref().map(|size| size.bytes)), (3, Some(1 << 30)));
    }
}
