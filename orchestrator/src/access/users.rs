//! People and programs with a password. One line for each in a file, `name:role,role:$argon2id$…`; comments begin with
//! `#`. Passwords are checked with argon2id (RFC 9106), and what was right a moment ago need not be computed again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::file::{Watched, locked, read, replace};

/// Longest name of a user, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest password that is looked at, in bytes.
const MAX_PASSWORD: usize = 1024;
/// Shortest password that can be set, in characters.
pub const MIN_PASSWORD: usize = 8;
/// How long a password that was right counts as right while the file says the same.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Most passwords that are remembered.
const MAX_REMEMBERED: usize = 10_000;
/// Checks at once: each takes 19 MiB and some ten milliseconds of a core.
const CHECKS: usize = 2;

/// Why the file of users cannot be changed.
#[derive(Debug, Error)]
pub enum UsersError {
    /// A name that would not survive in the file or in a header.
    #[error(
        "`{0}` is no user name: 1 to {MAX_NAME} letters, digits, `.`, `_`, `-` or `@`, and not `anonymous`"
    )]
    Name(String),
    /// Too easy, or too long to be meant.
    #[error("a password has {MIN_PASSWORD} characters or more, and at most {MAX_PASSWORD} bytes")]
    Password,
    /// The file says something else than users.
    #[error("{0}")]
    Content(String),
    /// The hash could not be computed.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    /// The file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// One user as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    roles: Vec<String>,
    hash: String,
}

type Table = BTreeMap<String, User>;

/// Whether this can be the name of a user.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
        && name != "anonymous"
}

fn parse(text: &str) -> Result<Table, String> {
    let mut table = Table::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.splitn(3, ':');
        let (Some(name), Some(roles), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("line {} is not `name:roles:hash`", index + 1));
        };
        if !is_name(name) {
            return Err(format!("line {}: {}", index + 1, UsersError::Name(name.to_owned())));
        }
        if PasswordHash::new(hash).is_err() {
            return Err(format!(
                "line {}: the hash of `{name}` is not in the form $argon2id$…; `users add` writes one",
                index + 1
            ));
        }
        let roles = split(roles);
        if table.insert(name.to_owned(), User { roles, hash: hash.to_owned() }).is_some() {
            return Err(format!("line {}: `{name}` is there twice", index + 1));
        }
    }
    Ok(table)
}

/// The words of a list with commas.
pub(super) fn split(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn write(table: &Table) -> String {
    let mut text = "# name:roles:hash; `wps-orchestrator users` changes this file\n".to_owned();
    for (name, user) in table {
        text.push_str(&format!("{name}:{}:{}\n", user.roles.join(","), user.hash));
    }
    text
}

fn hash(password: &str) -> Result<String, UsersError> {
    if password.chars().count() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
        return Err(UsersError::Password);
    }
    let mut salt = [0u8; 16];
    super::random(&mut salt);
    let salt = SaltString::encode_b64(&salt).map_err(|error| UsersError::Hash(error.to_string()))?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hash.map_err(|error| UsersError::Hash(error.to_string()))?.to_string())
}

/// Adds a user or gives one a new password; `None` leaves roles or password as they are. Returns whether it is new.
pub fn set(
    path: &Path,
    name: &str,
    password: Option<&str>,
    roles: Option<Vec<String>>,
) -> Result<bool, UsersError> {
    if !is_name(name) {
        return Err(UsersError::Name(name.to_owned()));
    }
    let new_hash = password.map(hash).transpose()?;
    change(path, |table| {
        let known = table.get(name).cloned();
        let hash = new_hash.or_else(|| known.as_ref().map(|user| user.hash.clone()));
        let hash = hash.ok_or(UsersError::Password)?;
        let roles = roles.or_else(|| known.as_ref().map(|user| user.roles.clone())).unwrap_or_default();
        table.insert(name.to_owned(), User { roles, hash });
        Ok(known.is_none())
    })
}

/// Removes a user. Returns whether there was one.
pub fn remove(path: &Path, name: &str) -> Result<bool, UsersError> {
    change(path, |table| Ok(table.remove(name).is_some()))
}

/// Names and roles.
pub fn list(path: &Path) -> Result<Vec<(String, Vec<String>)>, UsersError> {
    let text = read(path).map_err(|source| UsersError::Io { path: path.to_owned(), source })?;
    let table = parse(&text).map_err(|why| UsersError::Content(format!("{}: {why}", path.display())))?;
    Ok(table.into_iter().map(|(name, user)| (name, user.roles)).collect())
}

fn change<T>(path: &Path, edit: impl FnOnce(&mut Table) -> Result<T, UsersError>) -> Result<T, UsersError> {
    let io = |source| UsersError::Io { path: path.to_owned(), source };
    let result = locked(path, || {
        let text = read(path)?;
        Ok(parse(&text).map_err(|why| UsersError::Content(format!("{}: {why}", path.display()))).and_then(
            |mut table| {
                let answer = edit(&mut table)?;
                replace(path, &write(&table)).map_err(io)?;
                Ok(answer)
            },
        ))
    });
    result.map_err(io)?
}

/// Checks passwords against the file.
#[derive(Debug)]
pub(super) struct Users {
    file: Watched<Table>,
    /// Keeps what is remembered useless outside of this process.
    key: [u8; 32],
    known: Mutex<HashMap<[u8; 32], Instant>>,
    checks: Arc<Semaphore>,
    /// Stands in for the hash of users that do not exist, so that they take as long as those that do.
    nobody: String,
}

impl Users {
    pub(super) fn new(path: PathBuf) -> Self {
        let mut key = [0; 32];
        super::random(&mut key);
        let nobody = hash("nobody has this password").unwrap_or_default();
        let checks = Arc::new(Semaphore::new(CHECKS));
        Self { file: Watched::new(path, parse), key, known: Mutex::default(), checks, nobody }
    }

    /// Whether anybody could log in with a password.
    pub(super) fn is_used(&self) -> bool {
        self.file.get().is_ok_and(|table| !table.is_empty())
    }

    /// Reads the file, so that what is wrong with it is known at the start.
    pub(super) fn examine(&self) -> Result<(), String> {
        self.file.get().map(|_| ())
    }

    /// The roles of a user whose password this is; `None` if it is not. The same work is done for names that do not
    /// exist.
    pub(super) async fn check(&self, name: &str, password: &str) -> Result<Option<Vec<String>>, String> {
        let table = self.file.get()?;
        let user = table.get(name);
        let hash = user.map_or(&self.nobody, |user| &user.hash).clone();
        let password = if password.len() <= MAX_PASSWORD { password } else { "" };
        let mut digest = Sha256::new();
        digest.update(self.key);
        for part in [&hash, password] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let digest: [u8; 32] = digest.finalize().into();
        if self.remembers(&digest) {
            return Ok(user.map(|user| user.roles.clone()));
        }
        let permit = self.checks.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let password = password.to_owned();
        let verify = move || {
            let _permit = permit;
            let parsed = PasswordHash::new(&hash).map_err(|error| error.to_string())?;
            Ok::<_, String>(Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
        };
        let right = tokio::task::spawn_blocking(verify).await.map_err(|error| error.to_string())??;
        if !right {
            return Ok(None);
        }
        let Some(user) = user else { return Ok(None) };
        self.remember(digest);
        Ok(Some(user.roles.clone()))
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        if known.len() < MAX_REMEMBERED {
            known.insert(digest, Instant::now());
        }
    }

    /// The roles of a user, for a token that stands in for it; `None` if there is no such user.
    pub(super) fn roles(&self, name: &str) -> Option<Vec<String>> {
        self.file.get().ok()?.get(name).map(|user| user.roles.clone())
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_come_change_and_go_while_the_service_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        let users = Users::new(path.clone());
        assert!(!users.is_used());
        assert_eq!(users.check("ann", "correct horse").await, Ok(None));
        assert!(set(&path, "ann", Some("correct horse"), Some(vec!["staff".to_owned()])).expect("set"));
        assert!(users.is_used());
        assert_eq!(users.check("ann", "correct horse").await, Ok(Some(vec!["staff".to_owned()])));
        assert_eq!(users.check("ann", "correct Horse").await, Ok(None));
        assert_eq!(users.check("ANN", "correct horse").await, Ok(None));
        // A new password counts at once, whatever was remembered of the old one.
        assert!(!set(&path, "ann", Some("battery staple"), None).expect("set"));
        assert_eq!(users.check("ann", "correct horse").await, Ok(None));
        assert_eq!(users.check("ann", "battery staple").await, Ok(Some(vec!["staff".to_owned()])));
        assert!(remove(&path, "ann").expect("removed"));
        assert_eq!(users.check("ann", "battery staple").await, Ok(None));
        assert!(!std::fs::read_to_string(&path).expect("a file").contains("battery"));
    }

    #[test]
    fn what_would_break_the_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        for name in ["", "a:b", "a b", "ü", "anonymous", "x\ny", &"n".repeat(65)] {
            assert!(
                matches!(set(&path, name, Some("long enough"), None), Err(UsersError::Name(_))),
                "{name}"
            );
        }
        assert!(matches!(set(&path, "ann", Some("short"), None), Err(UsersError::Password)));
        assert!(matches!(set(&path, "ann", None, None), Err(UsersError::Password)));
        for (text, says) in [
            ("ann", "line 1"),
            ("# fine\nann:staff:plain text", "$argon2id$"),
            ("ann:staff:$apr1$x$y", "$argon2id$"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = list(&path).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
