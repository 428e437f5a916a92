//! The section `[legacy]`: agents of the old dialect.

use std::path::{Path, PathBuf};

use wps_remote_protocol::ini::settings::Secret;
use wps_remote_protocol::process::is_name;

use super::Reader;
use crate::bus::{LegacyAgents, LegacyConfig, LegacyFiles};

impl Reader<'_> {
    pub(super) fn legacy(&mut self, shared: Option<&Path>, lost_ms: u64) -> (LegacyConfig, Option<Secret>) {
        let list = |key: &str| -> Vec<String> {
            self.settings.list("legacy", key).into_iter().filter(|text| !text.is_empty()).collect()
        };
        let (rooms, agents, roots, maps) =
            (list("rooms"), list("agents"), list("result_roots"), list("path_map"));
        let accounts = list("accounts");
        let mut seen: Vec<String> = Vec::new();
        for room in &rooms {
            if !is_name(room) || *room == self.settings.string("xmpp", "management_room") {
                let why = format!(
                    "`{room}` cannot be a namespace with a room of its own: letters, digits, - and _, and not the management room"
                );
                self.fault("legacy", "rooms", why);
            } else if seen.iter().any(|other| other.eq_ignore_ascii_case(room)) {
                self.fault("legacy", "rooms", format!("`{room}` is listed twice"));
            }
            seen.push(room.clone());
        }
        let believed = LegacyAgents::parse(&agents).unwrap_or_else(|error| {
            self.fault("legacy", "agents", error.to_string());
            LegacyAgents::default()
        });
        if !rooms.is_empty() && believed.is_empty() {
            self.warnings.push(
                "[legacy] rooms are joined, but no agent is believed there: list them in [legacy] agents (SERVICE@HOST)"
                    .to_owned(),
            );
        }
        let mut path_map = Vec::new();
        for entry in maps {
            match entry.split_once("=>").map(|(there, here)| (there.trim(), here.trim())) {
                Some((there, here)) if !there.is_empty() && Path::new(here).is_absolute() => {
                    path_map.push((there.to_owned(), PathBuf::from(here)));
                }
                _ => {
                    let why = format!("`{entry}` is not of the form /path/there => /path/here");
                    self.fault("legacy", "path_map", why);
                }
            }
        }
        let mut roots: Vec<PathBuf> = roots.iter().map(|root| self.folder.join(root)).collect();
        if roots.is_empty() {
            roots.extend(shared.map(Path::to_owned));
        }
        let number = |key: &str| self.settings.number("legacy", key).unwrap_or(82.0);
        let config = LegacyConfig {
            rooms,
            agents: believed,
            accounts,
            cpu_threshold: number("cpu_threshold"),
            memory_threshold: number("memory_threshold"),
            force: self.settings.is_true("legacy", "force_execution"),
            heartbeat: self.seconds("legacy", "heartbeat_s"),
            accept_timeout: self.seconds("legacy", "accept_timeout_s"),
            lost_timeout: std::time::Duration::from_millis(lost_ms),
            files: LegacyFiles {
                roots,
                base: self.path("legacy", "upload_dir"),
                path_map,
                shared: shared.map(Path::to_owned),
            },
        };
        (config, self.settings.secret("legacy", "muc_password"))
    }
}
