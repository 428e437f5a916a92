//! As whom programs run: the names of `run_as` and `run_as_group` become numbers, once, at the start of the agent. Knows no job.

use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use thiserror::Error;

use crate::supervise::record::RunAs;

/// Why programs cannot be run as the user that is wanted.
#[derive(Debug, Error)]
pub enum UserError {
    /// Only root may change users.
    #[error("{0} needs an agent that runs as root: start it as root, or remove the key")]
    NotRoot(&'static str),
    /// There is no such user.
    #[error("run_as: there is no user `{0}` on this host")]
    NoUser(String),
    /// There is no such group.
    #[error("run_as_group: there is no group `{0}` on this host")]
    NoGroup(String),
    /// The host cannot say.
    #[error("user `{name}` cannot be looked up: {source}")]
    LookUp {
        /// Whom it was asked for.
        name: String,
        /// What it says.
        source: io::Error,
    },
}

/// The user of programs, or `None` if they run as the agent does. With a group, that is the main one, and the only one if no
/// user is named.
pub fn run_as(user: Option<&str>, group: Option<&str>) -> Result<Option<RunAs>, UserError> {
    let key = match (user, group) {
        (None, None) => return Ok(None),
        (Some(_), _) => "run_as",
        (None, Some(_)) => "run_as_group",
    };
    if !Uid::effective().is_root() {
        return Err(UserError::NotRoot(key));
    }
    let failed = |name: &str| {
        let name = name.to_owned();
        move |errno: nix::Error| UserError::LookUp { name, source: errno.into() }
    };
    let named = match user {
        Some(name) => User::from_name(name).map_err(failed(name))?,
        None => User::from_uid(Uid::effective()).map_err(failed("root"))?,
    };
    let named = named.ok_or_else(|| UserError::NoUser(user.unwrap_or("root").to_owned()))?;
    let gid = match group {
        Some(name) => {
            let group = Group::from_name(name).map_err(failed(name))?;
            group.ok_or_else(|| UserError::NoGroup(name.to_owned()))?.gid
        }
        None => named.gid,
    };
    let groups = match user {
        Some(name) => {
            // A name that comes from the host's own list holds no NUL.
            let c_name = std::ffi::CString::new(name)
                .map_err(|error| UserError::LookUp { name: name.to_owned(), source: error.into() })?;
            getgrouplist(&c_name, gid).map_err(failed(name))?
        }
        None => vec![gid],
    };
    Ok(Some(RunAs {
        name: named.name,
        uid: named.uid.as_raw(),
        gid: gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        home: named.dir,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_for_means_nobody_is_looked_up() {
        assert_eq!(run_as(None, None).unwrap(), None);
    }

    #[test]
    fn names_become_numbers_or_are_refused_by_name() {
        if !Uid::effective().is_root() {
            let error = run_as(Some("nobody"), None).unwrap_err();
            assert!(error.to_string().contains("run_as needs an agent that runs as root"), "{error}");
            return;
        }
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let run = run_as(Some("nobody"), None).unwrap().unwrap();
        assert_eq!((run.uid, run.gid), (nobody.uid.as_raw(), nobody.gid.as_raw()));
        assert!(run.groups.contains(&run.gid), "{run:?}");
        let run = run_as(None, Some("daemon")).unwrap().unwrap();
        assert_eq!((run.uid, run.groups.as_slice()), (0, &[run.gid][..]));
        assert!(matches!(run_as(Some("no such user"), None), Err(UserError::NoUser(_))));
        assert!(matches!(run_as(None, Some("no such group")), Err(UserError::NoGroup(_))));
    }
}
