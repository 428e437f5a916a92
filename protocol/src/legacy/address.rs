//! Rooms, resources and nicknames. In this dialect an address says what its owner is: an agent's service process (the
//! *master*), the process of one job, or neither. Parses and forms texts only.

/// What a nickname in the room of a namespace says about its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    /// The service process of an agent: it can be asked for its load, and executes requests.
    Master {
        /// Name of the service, without namespace.
        service: String,
        /// The namespace that the name itself brings (`ns.service`); usually the room is the namespace.
        namespace: Option<String>,
        /// The rest of the resource, after the first `@`: the host.
        host: String,
    },
    /// The process of one running job.
    Job {
        /// Name of the service, without namespace.
        service: String,
        /// The namespace that the name itself brings.
        namespace: Option<String>,
        /// Execution id.
        execution: String,
        /// The host.
        host: String,
    },
    /// An orchestrator, or somebody else.
    Other,
}

impl Occupant {
    /// Reads a nickname (what follows the first `/` of an occupant's address) as GeoServer does: behind `service@domain/`
    /// comes the resource; if it begins with `master` or holds no `@`, its owner is a master, else a job.
    pub fn read(nick: &str) -> Self {
        let mut parts = nick.split('/');
        let (Some(account), Some(resource), None) = (parts.next(), parts.next(), parts.next()) else {
            return Self::Other;
        };
        let name = account.split('@').next().unwrap_or_default();
        let (namespace, service) = match name.split_once('.') {
            Some((namespace, service)) => (Some(namespace.to_owned()), service.to_owned()),
            None => (None, name.to_owned()),
        };
        if service.is_empty() || resource.is_empty() {
            return Self::Other;
        }
        match resource.rsplit_once('@') {
            Some((execution, host)) if !resource.starts_with("master") => {
                Self::Job { service, namespace, execution: execution.to_owned(), host: host.to_owned() }
            }
            Some((_, host)) => Self::Master { service, namespace, host: host.to_owned() },
            None => Self::Master { service, namespace, host: String::new() },
        }
    }
}

/// The resource of a service process. It must begin with `master`, or GeoServer takes it for a job.
pub fn master_resource(host: &str) -> String {
    format!("master@{}", plain(host))
}

/// The resource of the process of a job.
pub fn job_resource(execution: &str, host: &str) -> String {
    format!("{}@{}", plain(execution), plain(host))
}

/// The nickname that goes with a resource: exactly one slash, and no dot in the service.
pub fn nick(service: &str, domain: &str, resource: &str) -> String {
    format!("{service}@{domain}/{resource}")
}

/// Without what would end a part of an address.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c == '/' || c == '@' || c.is_whitespace() { '-' } else { c }).collect()
}
