//! Which account may be which agent, and which processes it may announce; who holds which execution. Pure but for the file of
//! those that were enrolled, which is read again when it changes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wps_remote_protocol::{AgentId, ExecutionId, FromAgent, ProcessId};

/// Executions whose agent is remembered: more than can be under way.
const MAX_PLACED: usize = 100_000;
/// Largest file of grants that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// What accounts may announce: identifiers of processes, namespaces, or beginnings of them that end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<String, Vec<String>>);

impl Grants {
    /// From accounts (`user@domain`, or `*` for all others) and what each may announce.
    pub fn new(entries: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self(entries.into_iter().map(|(account, may)| (account.to_lowercase(), may)).collect())
    }

    fn of(&self, account: &str) -> Option<&Vec<String>> {
        self.0.get(&account.to_lowercase())
    }

    /// Reads the lines `account: what, what` that `Grants::line` writes; anything else is left out.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        Self::new(lines.filter_map(|line| {
            let (account, may) = line.split_once(": ")?;
            let may = may.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned);
            Some((account.trim().to_owned(), may.collect()))
        }))
    }

    /// The same text, for one account more.
    pub fn with_line(text: &str, account: &str, may: &[String]) -> String {
        let account = account.to_lowercase();
        let others =
            text.lines().filter(|line| line.split_once(": ").is_none_or(|(known, _)| known != account));
        let mut new: String = others.map(|line| format!("{line}\n")).collect();
        if new.is_empty() {
            new.push_str("# What enrolled agents may announce: account: namespace, namespace:process, …\n");
        }
        new.push_str(&format!("{account}: {}\n", may.join(", ")));
        new
    }
}

/// Whether a pattern is one that can be granted: `*`, `namespace`, `namespace:process`, each perhaps with `*` at its end.
pub fn is_pattern(text: &str) -> bool {
    let bare = text.strip_suffix('*').unwrap_or(text);
    !text.is_empty()
        && bare.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'))
        && bare.matches(':').count() <= 1
}

fn fits(pattern: &str, process: &ProcessId) -> bool {
    let id = process.to_string();
    match pattern.strip_suffix('*') {
        Some(beginning) => id.starts_with(beginning),
        None if pattern.contains(':') => id == pattern,
        None => id.split_once(':').is_some_and(|(namespace, _)| namespace == pattern),
    }
}

/// Whom to believe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentTrust {
    /// What the operator has written; it counts before everything else.
    pub listed: Grants,
    /// The file with what enrolled agents may announce.
    pub enrolled: Option<PathBuf>,
}

/// The same at work.
pub(super) struct Trust {
    config: AgentTrust,
    enrolled: Grants,
    stamp: Option<(SystemTime, u64)>,
    placed: HashMap<ExecutionId, AgentId>,
    order: VecDeque<ExecutionId>,
}

impl Trust {
    pub(super) fn new(config: AgentTrust) -> Self {
        Self {
            config,
            enrolled: Grants::default(),
            stamp: None,
            placed: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether an account may appear under this name: that of an agent is its own account, or begins with that and an `@`. Where the room
    /// does not disclose accounts there is nothing to compare.
    pub(super) fn may_be(name: &str, account: Option<&str>) -> bool {
        let Some(account) = account else { return true };
        let user = account.split_once('@').map_or(account, |(user, _)| user);
        let claimed = name.rsplit_once('@').map_or(name, |(claimed, _)| claimed);
        claimed.to_lowercase() == user.to_lowercase()
    }

    /// Whether this account may announce this process, else why not.
    pub(super) fn may_announce(&mut self, account: Option<&str>, process: &ProcessId) -> Result<(), String> {
        self.refresh();
        let listed = &self.config.listed;
        let own = account.and_then(|account| listed.of(account).or_else(|| self.enrolled.of(account)));
        let may = match own.or_else(|| listed.of("*")) {
            Some(may) => may,
            None if listed.0.is_empty() => return Ok(()),
            None => &Vec::new(),
        };
        if may.iter().any(|pattern| fits(pattern, process)) {
            return Ok(());
        }
        Err(match account {
            Some(account) => format!("the account {account} may not announce {process}: add it to [agents]"),
            None => format!(
                "the room does not disclose accounts, and [agents] lets no unknown one announce {process}"
            ),
        })
    }

    fn refresh(&mut self) {
        let Some(path) = &self.config.enrolled else { return };
        let stamp = std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match read(path) {
            Ok(text) => self.enrolled = Grants::parse(&text),
            // What was known stays: whoever takes the file away must not open the door.
            Err(error) => {
                tracing::warn!(
                    "{}: {error}; what enrolled agents may announce stays as it was",
                    path.display()
                );
            }
        }
    }

    /// An execution is at this agent.
    pub(super) fn place(&mut self, execution: &ExecutionId, agent: &AgentId) {
        if self.placed.insert(execution.clone(), agent.clone()).is_none() {
            self.order.push_back(execution.clone());
        }
        while self.order.len() > MAX_PLACED {
            if let Some(oldest) = self.order.pop_front() {
                self.placed.remove(&oldest);
            }
        }
    }

    /// Whether this agent may say this about an execution: not when another one has it.
    pub(super) fn may_report(&self, agent: &AgentId, message: &FromAgent) -> Result<(), String> {
        let execution = match message {
            FromAgent::Started { execution }
            | FromAgent::Progress { execution, .. }
            | FromAgent::Log { execution, .. }
            | FromAgent::Completed { execution, .. }
            | FromAgent::Error { execution, .. }
            | FromAgent::CannotExecute { execution, .. } => execution,
            FromAgent::Register(_)
            | FromAgent::Unregister(_)
            | FromAgent::Executions { .. }
            | FromAgent::Load(_) => return Ok(()),
        };
        match self.placed.get(execution) {
            Some(holder) if holder != agent => {
                Err(format!("it reports about the execution {execution}, which is at {holder}"))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > MAX_FILE {
        return Err(std::io::Error::other("larger than 4 MiB"));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: &str) -> ProcessId {
        id.parse().expect("an identifier")
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_name_belongs_to_its_account() {
        for (name, account, expected) in [
            ("a@host", Some("a@d"), true),
            ("A@host", Some("a@d"), true),
            ("a@b@host", Some("a@d"), false),
            ("a@host", Some("eve@d"), false),
            ("a", Some("a@d"), true),
            ("a", Some("eve@d"), false),
            ("eve@host", Some("a@d"), false),
            ("anything", None, true),
        ] {
            assert_eq!(Trust::may_be(name, account), expected, "{name} {account:?}");
        }
    }

    #[test]
    fn an_account_announces_what_it_was_granted_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("grants");
        let listed = Grants::new([
            ("gpu@d".to_owned(), list(&["ml", "gis:Contour"])),
            ("*".to_owned(), list(&["demo:E*"])),
        ]);
        let mut trust = Trust::new(AgentTrust { listed, enrolled: Some(file.clone()) });
        let mut may = |account: Option<&str>, id: &str| trust.may_announce(account, &process(id)).is_ok();
        assert!(may(Some("GPU@d"), "ml:Any") && may(Some("gpu@d"), "gis:Contour"));
        assert!(!may(Some("gpu@d"), "gis:Other") && !may(Some("gpu@d"), "mlx:Any"));
        assert!(!may(Some("gpu@d"), "demo:Echo"), "its own entry counts, not that of all others");
        assert!(may(Some("other@d"), "demo:Echo") && !may(Some("other@d"), "demo:Sleep"));
        assert!(may(None, "demo:Echo") && !may(None, "ml:Any"));
        // An agent that is enrolled while we run.
        let text = Grants::with_line("", "new@d", &list(&["geo"]));
        std::fs::write(&file, &text).expect("written");
        assert!(may(Some("new@d"), "geo:A") && !may(Some("new@d"), "demo:Echo"));
        let text = Grants::with_line(&text, "new@d", &list(&["*"]));
        assert_eq!(text.lines().count(), 2, "{text}");
        std::fs::write(&file, text).expect("written");
        assert!(may(Some("new@d"), "ml:Any"));
        std::fs::remove_file(&file).expect("removed");
        assert!(may(Some("new@d"), "ml:Any"), "what was known stays");
    }

    #[test]
    fn without_a_list_only_the_enrolled_are_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("grants");
        std::fs::write(&file, "new@d: geo\n").expect("written");
        let mut trust = Trust::new(AgentTrust { listed: Grants::default(), enrolled: Some(file) });
        assert!(trust.may_announce(Some("any@d"), &process("ml:Any")).is_ok());
        assert!(trust.may_announce(None, &process("ml:Any")).is_ok());
        let why = trust.may_announce(Some("new@d"), &process("ml:Any")).expect_err("not granted");
        assert!(why.contains("new@d") && why.contains("ml:Any") && why.contains("[agents]"), "{why}");
        let listed = Grants::new([("gpu@d".to_owned(), list(&["ml"]))]);
        let mut trust = Trust::new(AgentTrust { listed, enrolled: None });
        assert!(trust.may_announce(Some("any@d"), &process("ml:Any")).is_err(), "a list is complete");
        for (text, good) in [
            ("*", true),
            ("ml", true),
            ("ml:A*", true),
            ("a:b:c", false),
            ("", false),
            ("a b", false),
            ("*a", false),
        ] {
            assert_eq!(is_pattern(text), good, "{text}");
        }
    }

    #[test]
    fn an_execution_is_reported_by_the_agent_that_has_it() {
        let mut trust = Trust::new(AgentTrust::default());
        let (a, b) = (AgentId::new("a@h"), AgentId::new("b@h"));
        let execution = ExecutionId::new("x1").expect("an id");
        let progress =
            FromAgent::Progress { execution: execution.clone(), percent: 1.0, message: String::new() };
        assert!(trust.may_report(&b, &progress).is_ok(), "the engine knows what is under way");
        trust.place(&execution, &a);
        assert!(trust.may_report(&a, &progress).is_ok());
        assert!(trust.may_report(&b, &progress).expect_err("not its own").contains("x1"));
        for n in 0..MAX_PLACED {
            trust.place(&ExecutionId::new(&format!("y{n}")).expect("an id"), &a);
        }
        assert_eq!((trust.placed.len(), trust.order.len()), (MAX_PLACED, MAX_PLACED));
    }
}
