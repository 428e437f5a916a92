//! The keys about how much each user may ask for, which stand in `[limits]` and, stronger, in `[role …]`, `[process …]` and
//! `[user …]`.

use wps_remote_protocol::ini::settings::{Key, Kind, Part};

use super::Reader;
use crate::access::OPERATOR;
use crate::limits::{LimitRules, Section};

const COUNT: Kind = Kind::Integer { min: 0, max: 1_000_000_000 };
const SIZE: Kind = Kind::Integer { min: 0, max: 1_000_000_000 };
const TIME: Kind = Kind::Integer { min: 0, max: 1_000_000_000 };
const SHARE: Kind = Kind::Integer { min: 1, max: 1000 };
const RANK: Kind = Kind::Integer { min: -1000, max: 1000 };

// In `[limits]`; 0 = no limit everywhere.
pub(super) const MAX_RUNNING: Key =
    Key::new("max_running", COUNT, "Most jobs that are at agents at once; more wait; 0 = as many as fit")
        .or("0");
pub(super) const RUNNING_PER_USER: Key = Key::new(
    "max_running_per_user",
    COUNT,
    "Most jobs of one user that run at once; more wait; binds neither operators nor callers without a login; 0 = no limit",
)
.or("4");
pub(super) const QUEUED_PER_USER: Key = Key::new(
    "max_queued_per_user",
    COUNT,
    "Most jobs of one user that may wait; more are refused with ServerBusy (429); binds the same; 0 = no limit",
)
.or("20");
pub(super) const REQUEST: Key =
    Key::new("max_request_mb", SIZE, "Largest request, at most [http] max_body_mb; 0 = that")
        .or("0")
        .unit("MB");
pub(super) const INLINE: Key =
    Key::new("max_input_inline_mb", SIZE, "Largest input in a request; 0 = as large as the request may be")
        .or("0")
        .unit("MB");
pub(super) const REFERENCE: Key = Key::new(
    "max_input_reference_mb",
    SIZE,
    "Largest input by reference, at most [references] max_mb; 0 = that",
)
.or("0")
.unit("MB");
pub(super) const OUTPUT: Key =
    Key::new("max_output_mb", SIZE, "Most that all outputs of a job may have together; 0 = no limit")
        .or("20480")
        .unit("MB");
pub(super) const STORED: Key = Key::new(
    "max_stored_mb_per_user",
    SIZE,
    "Most that is kept for one user; then no new jobs; 0 = no limit",
)
.or("0")
.unit("MB");
pub(super) const STORED_JOBS: Key = Key::new(
    "max_stored_jobs_per_user",
    COUNT,
    "Most jobs that are kept for one user; then no new ones; 0 = no limit",
)
.or("0");
pub(super) const RUN_TIME: Key =
    Key::new("max_run_time_s", TIME, "Longest time of a job's program; 0 = as its descriptor says")
        .or("0")
        .unit("s");
pub(super) const TOTAL_TIME: Key =
    Key::new("max_total_time_s", TIME, "Longest time from acceptance to the end; 0 = no limit")
        .or("0")
        .unit("s");

// In the other sections.
pub(super) const R_RUNNING: Key =
    Key::new("max_running", COUNT, "Most jobs of all of them together that run at once");
pub(super) const R_QUEUED: Key =
    Key::new("max_queued", COUNT, "Most jobs of all of them together that may wait");
pub(super) const R_RUNNING_EACH: Key =
    Key::new("max_running_per_user", COUNT, "Most jobs of each user that run at once");
pub(super) const R_QUEUED_EACH: Key =
    Key::new("max_queued_per_user", COUNT, "Most jobs of each user that may wait");
pub(super) const R_REQUEST: Key = Key::new("max_request_mb", SIZE, "Largest request").unit("MB");
pub(super) const R_INLINE: Key =
    Key::new("max_input_inline_mb", SIZE, "Largest input in a request").unit("MB");
pub(super) const R_REFERENCE: Key =
    Key::new("max_input_reference_mb", SIZE, "Largest input by reference").unit("MB");
pub(super) const R_OUTPUT: Key = Key::new("max_output_mb", SIZE, "Most that a job may give out").unit("MB");
pub(super) const R_STORED: Key =
    Key::new("max_stored_mb_per_user", SIZE, "Most that is kept for each user").unit("MB");
pub(super) const R_STORED_JOBS: Key =
    Key::new("max_stored_jobs_per_user", COUNT, "Most jobs that are kept for each user");
pub(super) const R_SYNC: Key =
    Key::new("sync_timeout_s", TIME, "Longest wait of a synchronous Execute").unit("s");
pub(super) const R_QUEUE_TIME: Key =
    Key::new("max_queue_time_s", TIME, "Longest wait for an agent").unit("s");
pub(super) const R_RUN_TIME: Key =
    Key::new("max_run_time_s", TIME, "Longest time of a job's program").unit("s");
pub(super) const R_TOTAL_TIME: Key =
    Key::new("max_total_time_s", TIME, "Longest time from acceptance to the end").unit("s");
pub(super) const R_WEIGHT: Key =
    Key::new("weight", SHARE, "Share of each user among those that wait; default: 1, and 2 is twice as much");
pub(super) const R_PRIORITY: Key =
    Key::new("priority", RANK, "Jobs of a higher priority go before all others; default: 0");
pub(super) const R_NEEDS: Key =
    Key::new("needs", Kind::List, "Labels that an agent must have (its key `labels`) to get such jobs");

/// One user.
pub(super) const USER: Part = Part {
    name: "user NAME",
    doc: "Limits of one user, stronger than those of processes, roles and [limits], in this order. anonymous = all callers without a login together.",
    open: false,
    keys: &[
        Key::new("max_running", COUNT, "Most jobs that run at once"),
        Key::new("max_queued", COUNT, "Most jobs that may wait"),
        R_REQUEST,
        R_INLINE,
        R_REFERENCE,
        R_OUTPUT,
        Key::new("max_stored_mb_per_user", SIZE, "Most that is kept for it").unit("MB"),
        Key::new("max_stored_jobs_per_user", COUNT, "Most jobs that are kept for it"),
        R_SYNC,
        R_QUEUE_TIME,
        R_RUN_TIME,
        R_TOTAL_TIME,
        R_WEIGHT,
        R_PRIORITY,
        R_NEEDS,
    ],
};

impl Reader<'_> {
    /// All limits.
    pub(super) fn limit_rules(&mut self) -> LimitRules {
        let mut named = |part: &str, word: &str| -> Vec<(String, Section)> {
            let names = self.settings.members(part).to_vec();
            names.into_iter().map(|name| (name.clone(), self.limits_of(&format!("{word} {name}")))).collect()
        };
        let roles = named("role NAME", "role").into_iter().collect();
        let users = named("user NAME", "user").into_iter().collect();
        let mut processes = named("process NAME", "process");
        // The more of a name is written out, the more precisely it says what it means.
        processes.sort_by_key(|(name, _)| (name.contains('*'), std::cmp::Reverse(name.len()), name.clone()));
        // A role that the file does not describe is what it is without configuration.
        let described = self.settings.members("role NAME").to_vec();
        let operates = |name: &String| {
            let section = format!("role {name}");
            let unsaid = self.document.entry(&section, "operator").is_none();
            (name == OPERATOR && unsaid) || self.settings.is_true(&section, "operator")
        };
        let built_in = (!described.iter().any(|name| name == OPERATOR)).then(|| OPERATOR.to_owned());
        let operators = described.iter().filter(|name| operates(name)).cloned().chain(built_in).collect();
        LimitRules { general: self.limits_of("limits"), roles, users, processes, operators }
    }

    fn limits_of(&mut self, section: &str) -> Section {
        let integer = |key: &str| self.settings.integer(section, key);
        let count = |key: &str| integer(key).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let mega = |key: &str| integer(key).map(|n| u64::try_from(n).unwrap_or(0).saturating_mul(1 << 20));
        let seconds = |key: &str| integer(key).map(|n| u64::try_from(n).unwrap_or(0).saturating_mul(1000));
        let found = Section {
            max_running: count("max_running"),
            max_queued: count("max_queued"),
            max_running_per_user: count("max_running_per_user"),
            max_queued_per_user: count("max_queued_per_user"),
            max_request: mega("max_request_mb"),
            max_input_inline: mega("max_input_inline_mb"),
            max_input_reference: mega("max_input_reference_mb"),
            max_output: mega("max_output_mb"),
            max_stored: mega("max_stored_mb_per_user"),
            max_stored_jobs: count("max_stored_jobs_per_user"),
            sync_timeout: seconds("sync_timeout_s"),
            max_queue_time: seconds("max_queue_time_s"),
            max_run_time: seconds("max_run_time_s"),
            max_total_time: seconds("max_total_time_s"),
            weight: count("weight"),
            priority: integer("priority").map(|n| i32::try_from(n).unwrap_or(0)),
            needs: self
                .settings
                .list(section, "needs")
                .into_iter()
                .filter(|label| !label.is_empty())
                .collect(),
        };
        let good = |label: &&String| {
            label.len() <= 64
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if let Some(bad) = found.needs.iter().find(|label| !good(label)) {
            let why = format!("`{bad}` is no label: 1 to 64 of A-Z a-z 0-9 . _ -");
            self.fault(section, "needs", why);
        }
        found
    }
}
