//! The part of the configuration about people: `[access]`, `[openid]`, roles, and processes that are not for everybody.

use std::collections::BTreeMap;
use std::path::Path;

use wps_remote_protocol::ini::settings::{Key, Kind, Part};

use super::{Reader, limits};
use crate::access::{AccessConfig, Catalog, OPERATOR, OpenIdConfig, Pattern, Role, Rules, USER};
use crate::http::HttpConfig;

const POSITIVE: Kind = Kind::Integer { min: 1, max: 87_600 };

pub(super) const ACCESS: Part = Part {
    name: "access",
    doc: "Who may use the service. Users: wps-orchestrator users add NAME. Tokens: wps-orchestrator tokens create.",
    open: false,
    keys: &[
        Key::new(
            "anonymous",
            Kind::Text,
            "Role of callers who name nobody; none = they must log in; default: operator on loopback without public_url and proxies, else user",
        ),
        Key::new(
            "catalog",
            Kind::Choice(&["hide", "challenge", "mixed"]),
            "Processes that a caller may not use: hidden; listed, but executing them asks for a login; or not listed, but asking for a login when named",
        )
        .or("hide"),
        Key::new("realm", Kind::Text, "What browsers show when they ask for a password").or("WPS"),
        Key::new("users_file", Kind::Path, "Users and hashes of their passwords; default: data_dir/users"),
        Key::new("tokens_file", Kind::Path, "Tokens; default: data_dir/tokens"),
        Key::new(
            "user_header",
            Kind::Text,
            "Header in which the proxies of [http] trusted_proxies name the user, e.g. X-Remote-User",
        ),
        Key::new("roles_header", Kind::Text, "Header in which they name the user's roles, separated by commas"),
        Key::new(
            "open_pages",
            Kind::List,
            "Pages that need no login even if the service does, of: health, metrics",
        )
        .or("health, metrics"),
        Key::new("link_ttl_h", POSITIVE, "How long shared links to results open at most").or("24").unit("h"),
        Key::new("audit_file", Kind::Path, "File of who did what, as JSON lines, besides the log"),
    ],
};

pub(super) const OPENID: Part = Part {
    name: "openid",
    doc: "An OpenID Connect issuer whose access tokens are accepted as Bearer tokens.",
    open: false,
    keys: &[
        Key::new("issuer", Kind::Text, "Its URL, exactly as in its tokens; nothing = no OpenID Connect"),
        Key::new("audience", Kind::List, "Audiences of which a token must name one").or("wps"),
        Key::new("user_claim", Kind::Text, "Claim that names the user").or("preferred_username"),
        Key::new(
            "roles_claim",
            Kind::Text,
            "Claim with the roles; dots lead into objects, e.g. realm_access.roles",
        )
        .or("roles"),
    ],
};

pub(super) const OPENID_ROLES: Part = Part {
    name: "openid_roles",
    doc: "What the issuer's roles are called here: role of the issuer = role; others keep their names.",
    open: true,
    keys: &[],
};

pub(super) const ROLE: Part = Part {
    name: "role NAME",
    doc: "A role, any number of them; whoever has several has the limits of the first. operator and user exist without being written.",
    open: false,
    keys: &[
        Key::new("processes", Kind::List, "Processes that it may use; * stands for any run of characters")
            .or("*"),
        Key::new("all_jobs", Kind::Boolean, "Whether it sees and dismisses everybody's jobs").or("false"),
        Key::new("operator", Kind::Boolean, "Whether it sees agents and changes how the service runs")
            .or("false"),
        limits::R_RUNNING,
        limits::R_QUEUED,
        limits::R_RUNNING_EACH,
        limits::R_QUEUED_EACH,
        limits::R_REQUEST,
        limits::R_INLINE,
        limits::R_REFERENCE,
        limits::R_OUTPUT,
        limits::R_STORED,
        limits::R_STORED_JOBS,
        limits::R_SYNC,
        limits::R_QUEUE_TIME,
        limits::R_RUN_TIME,
        limits::R_TOTAL_TIME,
        limits::R_WEIGHT,
        limits::R_PRIORITY,
        limits::R_NEEDS,
    ],
};

pub(super) const PROCESS: Part = Part {
    name: "process NAME",
    doc: "Processes that are not for every role that could use them, or have limits of their own; NAME is an identifier, * in it any run of characters.",
    open: false,
    keys: &[
        Key::new("roles", Kind::List, "The roles that may use them; default: all that could"),
        limits::R_RUNNING,
        limits::R_QUEUED,
        limits::R_RUNNING_EACH,
        limits::R_QUEUED_EACH,
        limits::R_INLINE,
        limits::R_REFERENCE,
        limits::R_OUTPUT,
        limits::R_SYNC,
        limits::R_QUEUE_TIME,
        limits::R_RUN_TIME,
        limits::R_TOTAL_TIME,
        limits::R_PRIORITY,
        limits::R_NEEDS,
    ],
};

impl Reader<'_> {
    pub(super) fn access(&mut self, http: &HttpConfig, data_dir: &Path) -> AccessConfig {
        let roles = self.roles();
        let processes = self.processes();
        let local =
            http.listen.ip().is_loopback() && http.public_url.is_none() && http.trusted_proxies.is_empty();
        let anonymous = match self.text("access", "anonymous").as_deref() {
            Some("none") => None,
            Some(role) => Some(role.to_owned()),
            None => Some(if local { OPERATOR } else { USER }.to_owned()),
        };
        let catalog = match self.settings.text("access", "catalog") {
            Some("challenge") => Catalog::Challenge,
            Some("mixed") => Catalog::Mixed,
            _ => Catalog::Hide,
        };
        let rules = Rules::new(roles, processes, catalog, anonymous.clone());
        if let Some(role) = anonymous.filter(|role| !rules.knows(role)) {
            self.fault(
                "access",
                "anonymous",
                format!("`{role}` is no role: none, operator, user, or a [role …] of this file"),
            );
        }
        for process in self.settings.members("process NAME") {
            let section = format!("process {process}");
            if let Some(role) = self.settings.list(&section, "roles").iter().find(|role| !rules.knows(role)) {
                self.fault(
                    &section,
                    "roles",
                    format!("`{role}` is no role: operator, user, or a [role …] of this file"),
                );
            }
        }
        let open_pages = self.settings.list("access", "open_pages");
        for page in open_pages.iter().filter(|page| !["", "health", "metrics"].contains(&page.as_str())) {
            self.fault("access", "open_pages", format!("`{page}` is neither health nor metrics"));
        }
        let user_header = self.header("user_header");
        let roles_header = self.header("roles_header");
        if user_header.is_some() && http.trusted_proxies.is_empty() {
            self.fault(
                "access",
                "user_header",
                "needs [http] trusted_proxies: nobody else may name the user",
            );
        }
        AccessConfig {
            rules,
            realm: self.settings.string("access", "realm"),
            users_file: self.path("access", "users_file").unwrap_or_else(|| data_dir.join("users")),
            tokens_file: self.path("access", "tokens_file").unwrap_or_else(|| data_dir.join("tokens")),
            user_header,
            roles_header,
            proxies: http.trusted_proxies.clone(),
            open_id: self.open_id(),
            audit_file: self.path("access", "audit_file"),
            open_pages,
            link_ttl_s: self.unsigned("access", "link_ttl_h") * 3600,
        }
    }

    fn header(&mut self, key: &str) -> Option<String> {
        let name = self.text("access", key)?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if !name.bytes().all(token) || name.eq_ignore_ascii_case("authorization") {
            self.fault("access", key, format!("`{name}` is no name of a header of a proxy's own"));
        }
        Some(name)
    }

    fn roles(&mut self) -> Vec<Role> {
        let names = self.settings.members("role NAME").to_vec();
        let mut roles = Vec::new();
        for name in names {
            let section = format!("role {name}");
            if name == "none" || name.contains([',', ':', '\n']) {
                self.fault(&section, "processes", format!("`{name}` cannot be the name of a role"));
            }
            let built_in = name == OPERATOR;
            let is = |key: &str| match self.document.entry(&section, key) {
                None if built_in => true,
                _ => self.settings.is_true(&section, key),
            };
            let (all_jobs, operator) = (is("all_jobs"), is("operator"));
            let processes = self.settings.list(&section, "processes").into_iter().map(Pattern::new).collect();
            roles.push(Role { name, processes, all_jobs, operator });
        }
        roles
    }

    fn processes(&mut self) -> BTreeMap<Pattern, Vec<String>> {
        let names = self.settings.members("process NAME").iter();
        let list = |name: &String| self.settings.text(&format!("process {name}"), "roles").is_some();
        names
            .filter(|name| list(name))
            .map(|name| {
                let roles = self.settings.list(&format!("process {name}"), "roles");
                (Pattern::new(name.as_str()), roles)
            })
            .collect()
    }

    fn open_id(&mut self) -> Option<OpenIdConfig> {
        let issuer = self.text("openid", "issuer")?;
        let audience: Vec<String> =
            self.settings.list("openid", "audience").into_iter().filter(|name| !name.is_empty()).collect();
        if audience.is_empty() {
            self.fault("openid", "audience", "is empty: tokens made for other services would open this one");
        }
        Some(OpenIdConfig {
            issuer,
            audience,
            user_claim: self.settings.string("openid", "user_claim"),
            roles_claim: self.settings.string("openid", "roles_claim"),
            role_names: self.settings.open("openid_roles").iter().cloned().collect(),
        })
    }
}
