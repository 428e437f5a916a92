//! Who may do what: roles, the processes that they may use, whose jobs they see. Pure: knows no password and no HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use wps_remote_protocol::ProcessDescription;

use crate::engine::job::UserId;

/// Name of the role that may do everything, unless the configuration describes it otherwise.
pub const OPERATOR: &str = "operator";
/// Name of the role that may use every process and sees its own jobs, unless the configuration describes it otherwise.
pub const USER: &str = "user";

/// A text with `*` for any run of characters, such as `gdal:*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Takes any text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether the whole name fits. Takes time in proportion to the product of both lengths at most.
    pub fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// What those who have a role may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// The processes that it may execute.
    pub processes: Vec<Pattern>,
    /// Whether it sees and dismisses everybody's jobs.
    pub all_jobs: bool,
    /// Whether it may look at agents and figures and change how the service runs.
    pub operator: bool,
}

impl Role {
    /// The role [`OPERATOR`] as it is without configuration.
    pub fn operator() -> Self {
        Self { all_jobs: true, operator: true, ..Self::user(OPERATOR) }
    }

    /// A role that may use every process and sees its own jobs.
    pub fn user(name: &str) -> Self {
        Self { name: name.to_owned(), processes: vec![Pattern::new("*")], all_jobs: false, operator: false }
    }
}

/// What a client sees of a process that it may not execute. The words are those of GeoServer's catalogue modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Catalog {
    /// Nothing, as if it did not exist.
    #[default]
    Hide,
    /// It is listed and described; executing it asks for a login.
    Challenge,
    /// It is not listed; whoever names it is asked for a login.
    Mixed,
}

/// What a caller may do beyond its roles: a token can be narrower than its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Execute processes and dismiss jobs.
    pub execute: bool,
    /// What the role `operator` may.
    pub operate: bool,
}

impl Scope {
    /// Everything that the roles allow.
    pub const FULL: Self = Self { execute: true, operate: true };
    /// Looking only.
    pub const READ: Self = Self { execute: false, operate: false };
}

/// How somebody proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Not at all.
    None,
    /// A password.
    Password,
    /// A token of ours.
    Token,
    /// A token of the OpenID Connect issuer.
    OpenId,
    /// The word of a trusted proxy.
    Proxy,
    /// The secret of this installation, which only its operators can read.
    Local,
}

impl Proof {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "anonymous",
            Self::Password => "password",
            Self::Token => "token",
            Self::OpenId => "openid",
            Self::Proxy => "proxy",
            Self::Local => "local",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The owner of what it starts.
    pub user: UserId,
    /// Its roles, in the order of the configuration: limits are those of the first.
    pub roles: Arc<[Arc<Role>]>,
    /// How far its proof reaches.
    pub scope: Scope,
    /// How it proved who it is.
    pub proof: Proof,
}

impl Caller {
    /// Somebody without any role, for pages that need none.
    pub fn nobody() -> Self {
        Self { user: UserId::anonymous(), roles: Arc::from([]), scope: Scope::READ, proof: Proof::None }
    }

    /// Whether it named itself.
    pub fn is_logged_in(&self) -> bool {
        self.proof != Proof::None
    }

    /// Whether it may look at agents and figures and change how the service runs.
    pub fn is_operator(&self) -> bool {
        self.scope.operate && self.roles.iter().any(|role| role.operator)
    }

    /// Whether it may look at and give up a job of this owner. What nobody owns is for everybody who knows its id.
    pub fn may_see(&self, owner: &UserId) -> bool {
        *owner == self.user || owner.is_anonymous() || self.roles.iter().any(|role| role.all_jobs)
    }

    /// Whether it sees everybody's jobs in lists.
    pub fn sees_all(&self) -> bool {
        self.roles.iter().any(|role| role.all_jobs)
    }

    /// Names of its roles.
    pub fn role_names(&self) -> Vec<&str> {
        self.roles.iter().map(|role| role.name.as_str()).collect()
    }
}

/// What is decided about one process and one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may use it.
    Allowed,
    /// As far as it is concerned the process does not exist.
    Hidden,
    /// Not without (another) login.
    Denied,
}

/// Roles and rules of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// All roles in the order of the configuration, the built-in ones last.
    roles: Vec<Arc<Role>>,
    /// Roles that alone may use the processes of a pattern.
    processes: BTreeMap<Pattern, Vec<String>>,
    catalog: Catalog,
    anonymous: Option<String>,
}

impl Default for Rules {
    /// Everybody may do everything: a service for its own host.
    fn default() -> Self {
        Self::new(Vec::new(), BTreeMap::new(), Catalog::Hide, Some(OPERATOR.to_owned()))
    }
}

impl Rules {
    /// `anonymous` is the role of callers who name nobody; `None` = they must log in.
    pub fn new(
        mut roles: Vec<Role>,
        processes: BTreeMap<Pattern, Vec<String>>,
        catalog: Catalog,
        anonymous: Option<String>,
    ) -> Self {
        for built_in in [Role::user(USER), Role::operator()] {
            if roles.iter().all(|role| role.name != built_in.name) {
                roles.push(built_in);
            }
        }
        Self { roles: roles.into_iter().map(Arc::new).collect(), processes, catalog, anonymous }
    }

    /// Whether a role of this name exists.
    pub fn knows(&self, role: &str) -> bool {
        self.roles.iter().any(|known| known.name == role)
    }

    /// Those of the named roles that exist, in the order of the configuration.
    pub fn roles<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Arc<[Arc<Role>]> {
        let names: Vec<&str> = names.into_iter().collect();
        self.roles.iter().filter(|role| names.contains(&role.name.as_str())).cloned().collect()
    }

    /// The caller who names nobody, if such callers are served at all.
    pub fn anonymous(&self) -> Option<Caller> {
        let role = self.anonymous.as_deref()?;
        Some(Caller {
            user: UserId::anonymous(),
            roles: self.roles([role]),
            scope: Scope::FULL,
            proof: Proof::None,
        })
    }

    /// Whether every caller sees the same processes, so that one document serves all.
    pub fn are_open(&self) -> bool {
        self.processes.is_empty()
            && self.roles.iter().all(|role| role.processes.iter().any(|pattern| pattern.0 == "*"))
    }

    fn allows(&self, caller: &Caller, process: &ProcessDescription) -> bool {
        let name = process.id.to_string();
        let has = |roles: &[String]| caller.roles.iter().any(|role| roles.contains(&role.name));
        // What the descriptor's author demands binds everybody but those who run the service.
        let announced =
            process.roles.is_empty() || has(&process.roles) || caller.roles.iter().any(|role| role.operator);
        announced
            && caller.roles.iter().any(|role| role.processes.iter().any(|pattern| pattern.fits(&name)))
            && self.processes.iter().filter(|(pattern, _)| pattern.fits(&name)).all(|(_, only)| has(only))
    }

    /// Whether a caller may execute a process.
    pub fn may_execute(&self, caller: &Caller, process: &ProcessDescription) -> Verdict {
        if self.allows(caller, process) {
            return if caller.scope.execute { Verdict::Allowed } else { Verdict::Denied };
        }
        match self.catalog {
            Catalog::Hide => Verdict::Hidden,
            Catalog::Challenge | Catalog::Mixed => Verdict::Denied,
        }
    }

    /// Whether a process stands in the lists that a caller gets.
    pub fn lists(&self, caller: &Caller, process: &ProcessDescription) -> bool {
        self.catalog == Catalog::Challenge || self.allows(caller, process)
    }

    /// What a caller gets who asks for the description of a process by name.
    pub fn may_describe(&self, caller: &Caller, process: &ProcessDescription) -> Verdict {
        if self.allows(caller, process) {
            return Verdict::Allowed;
        }
        match self.catalog {
            Catalog::Hide => Verdict::Hidden,
            Catalog::Challenge => Verdict::Allowed,
            Catalog::Mixed => Verdict::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(rules: &Rules, roles: &[&str]) -> Caller {
        let user = UserId("ann".to_owned());
        let roles = rules.roles(roles.iter().copied());
        Caller { user, roles, scope: Scope::FULL, proof: Proof::Password }
    }

    fn process(id: &str) -> ProcessDescription {
        serde_json::from_value(serde_json::json!({ "id": id, "title": id })).expect("a description")
    }

    #[test]
    fn what_a_descriptor_demands_binds_all_but_operators() {
        let rules = rules(Catalog::Hide);
        let only = ProcessDescription { roles: vec!["surveyor".to_owned()], ..process("demo:echo") };
        let guest = rules.anonymous().expect("guests are served");
        assert_eq!(rules.may_execute(&guest, &only), Verdict::Hidden);
        assert_eq!(rules.may_execute(&caller(&rules, &["staff"]), &only), Verdict::Hidden);
        assert_eq!(rules.may_execute(&caller(&rules, &[OPERATOR]), &only), Verdict::Allowed);
        let known = Rules::new(vec![Role::user("surveyor")], BTreeMap::new(), Catalog::Hide, None);
        assert_eq!(known.may_execute(&caller(&known, &["surveyor"]), &only), Verdict::Allowed);
    }

    fn rules(catalog: Catalog) -> Rules {
        let guest = Role { processes: vec![Pattern::new("demo:*")], ..Role::user("guest") };
        let only = BTreeMap::from([(Pattern::new("demo:secret*"), vec!["staff".to_owned()])]);
        Rules::new(vec![Role::user("staff"), guest], only, catalog, Some("guest".to_owned()))
    }

    #[test]
    fn a_role_reaches_as_far_as_its_patterns_and_a_process_can_narrow_it() {
        let rules = rules(Catalog::Hide);
        let [echo, secret, dem] = ["demo:echo", "demo:secret-one", "gdal:dem"].map(process);
        let guest = rules.anonymous().expect("guests are served");
        let staff = caller(&rules, &["staff"]);
        assert_eq!(rules.may_execute(&guest, &echo), Verdict::Allowed);
        assert_eq!(rules.may_execute(&guest, &secret), Verdict::Hidden);
        assert_eq!(rules.may_execute(&guest, &dem), Verdict::Hidden);
        for process in [&echo, &secret, &dem] {
            assert_eq!(rules.may_execute(&staff, process), Verdict::Allowed, "{}", process.id);
        }
        // The operator is no exception to what a process demands.
        assert_eq!(rules.may_execute(&caller(&rules, &[OPERATOR]), &secret), Verdict::Hidden);
        assert_eq!(rules.may_execute(&caller(&rules, &["nobody knows"]), &echo), Verdict::Hidden);
    }

    #[test]
    fn the_three_catalogue_modes() {
        let secret = process("demo:secret");
        for (mode, listed, described, executed) in [
            (Catalog::Hide, false, Verdict::Hidden, Verdict::Hidden),
            (Catalog::Challenge, true, Verdict::Allowed, Verdict::Denied),
            (Catalog::Mixed, false, Verdict::Denied, Verdict::Denied),
        ] {
            let rules = rules(mode);
            let guest = rules.anonymous().expect("guests are served");
            assert_eq!(rules.lists(&guest, &secret), listed, "{mode:?}");
            assert_eq!(rules.may_describe(&guest, &secret), described, "{mode:?}");
            assert_eq!(rules.may_execute(&guest, &secret), executed, "{mode:?}");
        }
    }

    #[test]
    fn jobs_are_seen_by_their_owner_by_operators_and_where_nobody_owns_them() {
        let rules = rules(Catalog::Hide);
        let ann = caller(&rules, &["staff"]);
        assert!(ann.may_see(&UserId("ann".to_owned())) && ann.may_see(&UserId::anonymous()));
        assert!(!ann.may_see(&UserId("bob".to_owned())) && !ann.sees_all());
        assert!(caller(&rules, &[OPERATOR]).may_see(&UserId("bob".to_owned())));
    }

    #[test]
    fn a_narrow_token_only_looks() {
        let rules = rules(Catalog::Hide);
        let mut caller = caller(&rules, &["staff", OPERATOR]);
        assert!(caller.is_operator());
        caller.scope = Scope::READ;
        assert!(!caller.is_operator());
        let echo = process("demo:echo");
        assert_eq!(rules.may_execute(&caller, &echo), Verdict::Denied);
        assert_eq!(rules.may_describe(&caller, &echo), Verdict::Allowed);
    }

    proptest! {
        #[test]
        fn patterns_are_what_a_regular_expression_would_be(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            let expected = slow(&pattern, &name);
            prop_assert_eq!(Pattern::new(pattern).fits(&name), expected);
        }
    }

    /// The definition itself: a star is nothing, or one character and a star.
    fn slow(pattern: &str, name: &str) -> bool {
        match pattern.chars().next() {
            None => name.is_empty(),
            Some('*') => slow(&pattern[1..], name) || (!name.is_empty() && slow(pattern, &name[1..])),
            Some(c) => name.starts_with(c) && slow(&pattern[1..], &name[1..]),
        }
    }
}
