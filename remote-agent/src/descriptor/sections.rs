//! What both dialects say in the same way: `[Environment]`, `[Limits]`, `[Access]`, weight and longest run.

use wps_remote_protocol::ini::{DEFAULT_SECTION, Template, bracket_list};
use wps_remote_protocol::process::is_role;

use super::common::Reading;
use super::model::Limits;

impl Reading<'_> {
    /// `[Environment]`.
    pub fn environment(&mut self) -> Vec<(String, Template)> {
        let Some(section) = self.doc.section_any_case("environment") else { return Vec::new() };
        let mut env = Vec::new();
        for entry in section.entries.clone() {
            let good = entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !good {
                let why = "is not a name of an environment variable";
                self.error("bad-name", &section.name, &entry.key, why, "use letters, digits and _ only");
            }
            if let Some(value) = self.template(&section.name, &entry.key) {
                env.push((entry.key, value));
            }
        }
        env
    }

    /// `[Limits]`.
    pub fn limits(&mut self) -> Limits {
        let Some(section) = self.doc.section_any_case("limits") else { return Limits::default() };
        let name = section.name.clone();
        self.unknown_keys(&name, &["cpu_seconds", "memory_mb", "output_mb", "open_files", "nice"]);
        let nice = self.text(&name, "nice").and_then(|text| {
            let number = text.trim().parse().ok().filter(|number| (-20..=19).contains(number));
            if number.is_none() {
                let why = format!("`{text}` is not a number from -20 to 19");
                self.error("bad-value", &name, "nice", why, "higher is nicer to others");
            }
            number
        });
        Limits {
            cpu_seconds: self.limit(&name, "cpu_seconds", 1),
            memory_mb: self.limit(&name, "memory_mb", 1),
            output_mb: self.limit(&name, "output_mb", 1),
            // The three standard streams, and what loading a program takes.
            open_files: self.limit(&name, "open_files", 8),
            nice,
        }
    }

    /// A limit that leaves the program a chance to run.
    fn limit(&mut self, section: &str, key: &str, least: u64) -> Option<u64> {
        let number = self.count(section, key)?;
        if number < least {
            let why = format!("{number} is too little for any program");
            let remedy =
                format!("write at least {least}, or remove the key: without it there is no such limit");
            self.error("bad-value", section, key, why, &remedy);
        }
        Some(number)
    }

    /// `[Access]`: the roles of which a client must have one; empty = no role is needed.
    pub fn access(&mut self) -> Vec<String> {
        let Some(section) = self.doc.section_any_case("access") else { return Vec::new() };
        let name = section.name.clone();
        self.unknown_keys(&name, &["roles"]);
        // A section that means to close the process and leaves it open would be worse than none.
        let Some(text) =
            self.required(&name, "roles", "add `roles = [first, second]`, or remove the section")
        else {
            return Vec::new();
        };
        let mut roles: Vec<String> = Vec::new();
        for role in bracket_list(&text) {
            if !is_role(&role) {
                let why = format!("`{role}` cannot name a role");
                self.error("bad-name", &name, "roles", why, "use 1 to 64 letters, digits and . _ - : @");
            } else if !roles.contains(&role) {
                roles.push(role);
            }
        }
        if roles.is_empty() && self.errors.is_empty() {
            let remedy = "write `roles = [first, second]`, or remove the section";
            self.error("bad-value", &name, "roles", "names no role", remedy);
        }
        if !roles.is_empty() {
            let why = "the roles are announced; an orchestrator that does not know them lets every client in";
            let remedy = "use an orchestrator that enforces roles, or limit access at its front door";
            self.warn("access-not-enforced", &name, "roles", why, remedy);
        }
        roles
    }

    /// `process_weight`: a JSON object with `weight` and `coefficient`, one of them or both.
    pub fn weight(&mut self, section: &str) -> f64 {
        let Some(text) = self.text(section, "process_weight") else { return self.context.default_weight };
        let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
        let Ok(object) = object else {
            let dotted = text.contains('.') && !text.contains(['{', ' ']) && text.parse::<f64>().is_err();
            let remedy = "write {\"weight\": 10, \"coefficient\": 1.0}";
            // legacy: what is neither a class nor an object weighs nothing.
            if !dotted && section == DEFAULT_SECTION {
                let why = "is not a JSON object and is ignored";
                self.warn("weight-ignored", section, "process_weight", why, remedy);
                return self.context.default_weight;
            }
            let (why, remedy) = if dotted {
                (
                    "names a Python class, which cannot be used",
                    "use weight_command with a program that prints a number",
                )
            } else {
                ("is not a JSON object", remedy)
            };
            self.error("bad-weight", section, "process_weight", why, remedy);
            return 0.0;
        };
        let mut part = |name: &str, default: f64| match object.get(name) {
            None => default,
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let number =
                    text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
                number.unwrap_or_else(|| {
                    let why = format!("`{name}` is `{text}`, which is not a number from 0");
                    self.error("bad-weight", section, "process_weight", why, "write a number from 0");
                    0.0
                })
            }
        };
        part("weight", 0.0) * part("coefficient", 1.0)
    }

    /// `max_running_time_seconds`.
    pub fn max_running(&mut self, section: &str, default: Option<u64>) -> Option<std::time::Duration> {
        let key = "max_running_time_seconds";
        let seconds = match self.text(section, key) {
            None => default?,
            Some(_) => self.count(section, key)?,
        };
        if seconds == 0 {
            self.warn(
                "no-time-limit",
                section,
                key,
                "0 means that a run may last for ever",
                "write a limit in seconds",
            );
            return None;
        }
        Some(std::time::Duration::from_secs(seconds))
    }
}
