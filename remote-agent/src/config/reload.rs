//! Reading `remote.config` again, and finding a running agent through it: what differs between two readings of `remote.config`: which keys take effect at once, and which ones after a restart.

use std::path::{Path, PathBuf};

use wps_remote_protocol::ini::{Document, IniError, Options, Variables};

use super::{AgentConfig, DEFAULT_RECORDS, SCHEMA, paths};

/// Keys whose values differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// These take effect at once.
    pub live: Vec<&'static str>,
    /// These take effect after a restart: they say who the agent is and where it works.
    pub restart: Vec<&'static str>,
}

/// Compares a new reading with the one before (for what can change at any time) and with the one that the agent was started
/// with (for what cannot).
pub fn differences(started: &AgentConfig, before: &AgentConfig, new: &AgentConfig) -> Differences {
    let mut found = Differences::default();
    macro_rules! compare {
        ($list:ident, $old:ident: $($field:ident = $key:literal),+ $(,)?) => {
            $(if $old.$field != new.$field && !found.$list.contains(&$key) { found.$list.push($key); })+
        };
    }
    // Complete on purpose: whoever adds a field decides here to which kind it belongs.
    let AgentConfig {
        source: _,
        host_name: _,
        warnings: _,
        capacity: _,
        load_threshold: _,
        labels: _,
        load_window: _,
        blacklist: _,
        max_parallel_jobs: _,
        kill_grace: _,
        retention: _,
        trusted: _,
        address: _,
        port: _,
        domain: _,
        user: _,
        password: _,
        tls: _,
        tls_ca_file: _,
        tls_server_name: _,
        tls_insecure: _,
        tls_fingerprint: _,
        muc_service: _,
        muc_password: _,
        management_room: _,
        agent_name: _,
        resource_file_dir: _,
        work_root: _,
        shared_dir: _,
        services_dir: _,
        latin1_descriptors: _,
        default_weight: _,
        allowed_paths: _,
        run_as: _,
        run_as_group: _,
        geoserver: _,
        geoserver_result_names: _,
        path_map: _,
        legacy_pickle: _,
        interpreters: _,
        uploader: _,
    } = new;
    compare!(live, before:
        capacity = "capacity",
        load_threshold = "load_threshold",
        labels = "labels",
        load_window = "load_average_scan_minutes",
        blacklist = "process_blacklist",
        max_parallel_jobs = "max_parallel_jobs",
        kill_grace = "kill_grace_seconds",
        retention = "retention_seconds",
        trusted = "trusted_orchestrators",
    );
    compare!(restart, started:
        address = "address",
        port = "port",
        domain = "domain",
        user = "user",
        password = "password",
        tls = "tls",
        tls_ca_file = "tls_ca_file",
        tls_server_name = "tls_server_name",
        tls_insecure = "tls_insecure",
        tls_fingerprint = "tls_fingerprint_sha256",
        muc_service = "mucService",
        muc_password = "mucServicePassword",
        management_room = "management_room",
        agent_name = "agent_name",
        resource_file_dir = "resource_file_dir",
        work_root = "work_root",
        shared_dir = "wps_execution_shared_dir",
        services_dir = "services_dir",
        latin1_descriptors = "descriptor_encoding",
        default_weight = "default_process_weight",
        allowed_paths = "allowed_paths",
        run_as = "run_as",
        run_as_group = "run_as_group",
        geoserver = "geoserver",
        geoserver_result_names = "geoserver_result_names",
        path_map = "path_map",
        legacy_pickle = "legacy_pickle",
        interpreters = "[Interpreters]",
        uploader = "[UPLOADER]",
    );
    found
}

impl AgentConfig {
    /// Where the agent with this configuration keeps its records. The rest of the file may have faults, which an operator wants
    /// to look into while the agent runs, and secrets are not needed: a systemd credential is there for the agent alone.
    pub fn records_of(path: &Path) -> Result<PathBuf, IniError> {
        let (absolute, bytes) = super::read(path)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        let doc = Document::parse(&bytes, &Options::new(absolute.to_string_lossy()).ignoring_case())?;
        let key = "resource_file_dir";
        let written = match std::env::var(SCHEMA.env_name(super::D, key)) {
            Ok(text) => Some(text),
            Err(_) => {
                let found = doc.resolve(super::D, key, &Variables::default());
                found.map_err(|finding| doc.error(vec![finding]))?.map(|text| text.to_string())
            }
        };
        let written = written.filter(|text| !text.is_empty()).unwrap_or_else(|| DEFAULT_RECORDS.to_owned());
        Ok(paths::absolute(Path::new(&written), folder))
    }
}
