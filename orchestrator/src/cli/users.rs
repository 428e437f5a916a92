//! `wps-orchestrator users` and `tokens`: who may log in. A running orchestrator sees the change at once.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Subcommand, ValueEnum};

use super::{audited, complain, print};
use crate::access::tokens::{self, NewToken, Use};
use crate::access::users;
use crate::chain::chain;
use crate::compose;
use crate::config::Config;
use crate::engine::job::Timestamp;

#[derive(Debug, Subcommand)]
pub(super) enum UserAction {
    /// Add a user and print its password, or read the password from standard input
    Add {
        /// Name: letters, digits, `.`, `_`, `-`, `@`
        name: String,
        /// Roles, separated by commas; without any it has the role `user`
        #[arg(long, value_name = "ROLE,…", value_delimiter = ',')]
        roles: Vec<String>,
        /// Read the password from the first line of standard input instead of making one
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give a user a new password
    Password {
        /// Name
        name: String,
        /// Read it from the first line of standard input instead of making one
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give a user other roles
    Roles {
        /// Name
        name: String,
        /// Roles, separated by commas
        #[arg(value_delimiter = ',')]
        roles: Vec<String>,
    },
    /// Remove a user; its tokens go on until they are revoked
    Remove {
        /// Name
        name: String,
    },
    /// List users and their roles
    List,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Usage {
    /// Look only
    Read,
    /// Also execute and dismiss
    Execute,
    /// Also what operators may, if the user may
    Operate,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenAction {
    /// Make a token that stands in for a user; it is printed once and never again
    Create {
        /// Whom it stands in for
        user: String,
        /// What it is for, e.g. `nightly import`
        #[arg(long)]
        name: String,
        /// Its own roles instead of the user's, separated by commas
        #[arg(long, value_name = "ROLE,…", value_delimiter = ',')]
        roles: Vec<String>,
        /// How far it reaches
        #[arg(long = "use", value_enum, default_value = "execute")]
        usage: Usage,
        /// Days until it expires; 0 = never
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        days: u32,
    },
    /// Take a token out of force
    Revoke {
        /// Its id, as `tokens list` shows it
        id: String,
    },
    /// List the tokens, without their secrets
    List,
}

fn password_of(from_stdin: bool) -> Result<(String, bool), String> {
    if !from_stdin {
        return Ok((compose::uuid(), true));
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| format!("standard input: {error}"))?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() { Err("no password on standard input".to_owned()) } else { Ok((password, false)) }
}

/// Roles that nobody has heard of are more often a slip than a plan.
fn unknown<'a>(config: &Config, roles: &'a [String]) -> Option<&'a str> {
    roles.iter().map(String::as_str).find(|role| !config.access.rules.knows(role))
}

fn no_such_role(role: &str) -> ExitCode {
    complain(
        1,
        format!("there is no role `{role}`; add [role {role}] to the configuration, or use operator or user"),
    )
}

pub(super) fn users(config: &Config, action: UserAction) -> ExitCode {
    let path = &config.access.users_file;
    let deed = match &action {
        UserAction::Add { name, .. } => Some(("add user", name.clone())),
        UserAction::Password { name, .. } => Some(("change password", name.clone())),
        UserAction::Roles { name, roles } => Some(("change roles", format!("{name}: {}", roles.join(",")))),
        UserAction::Remove { name } => Some(("remove user", name.clone())),
        UserAction::List => None,
    };
    let done = match action {
        UserAction::Add { name, roles, password_stdin } => {
            if let Some(role) = unknown(config, &roles) {
                return no_such_role(role);
            }
            if users::list(path).is_ok_and(|known| known.iter().any(|(other, _)| *other == name)) {
                return complain(
                    1,
                    format!("there is a user `{name}` already; `users password` or `users roles` changes it"),
                );
            }
            password_of(password_stdin).and_then(|(password, made)| {
                users::set(path, &name, Some(&password), Some(roles)).map_err(|error| chain(&error))?;
                if made {
                    print(format_args!("{password}\n"));
                }
                Ok(())
            })
        }
        UserAction::Password { name, password_stdin } => {
            if !users::list(path).is_ok_and(|known| known.iter().any(|(other, _)| *other == name)) {
                return complain(1, format!("there is no user `{name}` in {}", path.display()));
            }
            password_of(password_stdin).and_then(|(password, made)| {
                users::set(path, &name, Some(&password), None).map_err(|error| chain(&error))?;
                if made {
                    print(format_args!("{password}\n"));
                }
                Ok(())
            })
        }
        UserAction::Roles { name, roles } => {
            if let Some(role) = unknown(config, &roles) {
                return no_such_role(role);
            }
            if !users::list(path).is_ok_and(|known| known.iter().any(|(other, _)| *other == name)) {
                return complain(1, format!("there is no user `{name}` in {}", path.display()));
            }
            users::set(path, &name, None, Some(roles)).map(|_| ()).map_err(|error| chain(&error))
        }
        UserAction::Remove { name } => match users::remove(path, &name) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("there is no user `{name}` in {}", path.display())),
            Err(error) => Err(chain(&error)),
        },
        UserAction::List => users::list(path)
            .map(|known| {
                for (name, roles) in known {
                    print(format_args!(
                        "{name}  {}\n",
                        if roles.is_empty() { "user".to_owned() } else { roles.join(",") }
                    ));
                }
            })
            .map_err(|error| chain(&error)),
    };
    ended(config, done, deed)
}

/// The exit code, after a word in the audit file about what was changed.
fn ended(config: &Config, done: Result<(), String>, deed: Option<(&'static str, String)>) -> ExitCode {
    match (done, deed) {
        (Err(why), _) => complain(1, why),
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some((what, subject))) => {
            audited(config, what, &subject);
            ExitCode::SUCCESS
        }
    }
}

pub(super) fn tokens(config: &Config, action: TokenAction) -> ExitCode {
    let path = &config.access.tokens_file;
    let deed = match &action {
        TokenAction::Create { user, name, .. } => Some(("create token", format!("{user}: {name}"))),
        TokenAction::Revoke { id } => Some(("revoke token", id.clone())),
        TokenAction::List => None,
    };
    let done = match action {
        TokenAction::Create { user, name, roles, usage, days } => {
            if let Some(role) = unknown(config, &roles) {
                return no_such_role(role);
            }
            let usage = match usage {
                Usage::Read => Use::Read,
                Usage::Execute => Use::Execute,
                Usage::Operate => Use::Operate,
            };
            let now = now();
            let expires = (days > 0).then(|| now.plus_ms(u64::from(days) * 86_400_000));
            tokens::create(path, NewToken { name, user, roles, usage, expires }, now)
                .map(|(_, text)| print(format_args!("{text}\n")))
                .map_err(|error| chain(&error))
        }
        TokenAction::Revoke { id } => match tokens::revoke(path, &id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("there is no token `{id}` in {}", path.display())),
            Err(error) => Err(chain(&error)),
        },
        TokenAction::List => tokens::list(path)
            .map(|known| {
                for token in known {
                    let until = match token.expires {
                        None => "never expires".to_owned(),
                        Some(end) if end <= now() => "expired".to_owned(),
                        Some(end) => format!("until {}", crate::encoding::iso_time(end)),
                    };
                    print(format_args!("{}  {}  {}  {until}\n", token.id, token.user, token.name));
                }
            })
            .map_err(|error| chain(&error)),
    };
    ended(config, done, deed)
}

#[expect(clippy::disallowed_methods, reason = "tokens expire; no engine sees this time")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
