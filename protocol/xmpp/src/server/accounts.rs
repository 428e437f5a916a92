//! The accounts of the embedded server: one text file, `user:secret` per line, secrets salted as RFC 5802 stores
//! them; `;once=` and a time behind it make an account that opens once, until then, to get a password of its own. Read again whenever it changes; a broken edit keeps the last good content. Knows files, not logins.

use super::sasl::{Secrets, normalised};
use super::scram::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Marks an account that was made for one login; seconds since 1970 follow.
const ONCE: &str = ";once=";
/// Shortest and longest password that an enrolled account may get, in bytes.
const PASSWORD: std::ops::RangeInclusive<usize> = 16..=256;
const HEADING: &str =
    "# Accounts of the embedded XMPP server: user:iterations$salt$keys (RFC 5802). No passwords.\n";
/// The line that makes up secrets for users who do not exist.
const SEED: &str = "!seed";
/// A file of this size holds some 10,000 accounts; anything larger is a mistake.
const MAX_FILE: u64 = 4 << 20;

/// Why accounts could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The file could not be read or written.
    #[error("cannot access the accounts in {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is no account.
    #[error("{}:{line}: not an account (expected user:iterations$salt$…; use the program's own command to add accounts)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Not a possible local part of an address.
    #[error("`{user}` cannot be a user name: it must be the part of an XMPP address before the @")]
    BadUser {
        /// As given.
        user: String,
    },
    /// It is not, or no longer, an account that waits for its first login.
    #[error("the account `{user}` does not wait for its first login (any more)")]
    NotWaiting {
        /// The user.
        user: String,
    },
    /// Too easy, or too long to be meant.
    #[error("the password of an enrolled account has {} to {} bytes", PASSWORD.start(), PASSWORD.end())]
    BadPassword,
    /// Nobody could log in with it.
    #[error("the password of `{user}` is empty")]
    EmptyPassword {
        /// The user.
        user: String,
    },
}

/// The accounts in a file. Cheap to make; other processes may change the file at any time.
#[derive(Debug)]
pub struct Accounts {
    path: PathBuf,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    stamp: Option<Stamp>,
    content: Content,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("users", &self.content.users.len()).finish_non_exhaustive()
    }
}

/// What tells one version of the file from the next.
#[derive(PartialEq, Eq, Clone)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

#[derive(Default, Clone)]
struct Content {
    seed: Vec<u8>,
    users: BTreeMap<String, Account>,
}

#[derive(Clone)]
struct Account {
    secret: Secret,
    /// Waits for its first login until then, in seconds since 1970.
    once: Option<u64>,
}

impl Account {
    fn is_over(&self, now: u64) -> bool {
        self.once.is_some_and(|until| now > until)
    }
}

#[expect(clippy::disallowed_methods, reason = "invitations expire; no engine sees this time")]
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Accounts {
    /// The accounts in the file at `path`; a missing file means no accounts.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache: Mutex::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an account, or gives an existing one a new password. The file is created if necessary, readable by its
    /// owner only.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn set(&self, user: &str, password: &str) -> Result<(), AccountsError> {
        let user = normalised(user).ok_or_else(|| AccountsError::BadUser { user: user.to_owned() })?;
        if password.is_empty() {
            return Err(AccountsError::EmptyPassword { user });
        }
        let secret = Secret::of_password(password, rand::random());
        self.change(|content| {
            content.users.insert(user, Account { secret, once: None });
            Ok(())
        })
    }

    /// Adds an account that opens with this secret until `until` (seconds since 1970), and then only to give it a password
    /// of its own ([`session::enrol`](crate::session::enrol)). One that exists loses its password.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn invite(&self, user: &str, secret: &str, until: u64) -> Result<(), AccountsError> {
        let user = normalised(user).ok_or_else(|| AccountsError::BadUser { user: user.to_owned() })?;
        let secret = Secret::of_password(secret, rand::random());
        self.change(|content| {
            content.users.insert(user, Account { secret, once: Some(until) });
            Ok(())
        })
    }

    /// The accounts that wait for their first login, and until when (seconds since 1970).
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn waiting(&self) -> Result<Vec<(String, u64)>, AccountsError> {
        let users = self.read()?.users.into_iter();
        Ok(users.filter_map(|(user, account)| Some((user, account.once?))).collect())
    }

    /// Whether the account waits for its first login: nothing but [`Accounts::redeem`] is open to it then.
    pub(super) fn is_waiting(&self, user: &str) -> bool {
        self.current().content.users.get(user).is_some_and(|account| account.once.is_some())
    }

    /// Gives an account that waits for its first login the password that it will have. Works once.
    pub(super) fn redeem(&self, user: &str, password: &str) -> Result<(), AccountsError> {
        if !PASSWORD.contains(&password.len()) {
            return Err(AccountsError::BadPassword);
        }
        let secret = Secret::of_password(password, rand::random());
        self.change(|content| {
            let account = content.users.get_mut(user).filter(|account| account.once.is_some());
            let account = account.filter(|account| !account.is_over(now()));
            let account = account.ok_or_else(|| AccountsError::NotWaiting { user: user.to_owned() })?;
            *account = Account { secret, once: None };
            Ok(())
        })
    }

    /// Changes the file, while no other process does.
    fn change<T>(
        &self,
        edit: impl FnOnce(&mut Content) -> Result<T, AccountsError>,
    ) -> Result<T, AccountsError> {
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(beside);
        let lock = lock.map_err(self.failed())?;
        lock.lock().map_err(self.failed())?;
        let mut content = self.read()?;
        let done = edit(&mut content)?;
        self.write(content)?;
        Ok(done)
    }

    /// Removes an account; says whether there was one. A session that is logged in stays until it ends.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn remove(&self, user: &str) -> Result<bool, AccountsError> {
        self.change(|content| Ok(normalised(user).is_some_and(|user| content.users.remove(&user).is_some())))
    }

    /// The names of all accounts.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn list(&self) -> Result<Vec<String>, AccountsError> {
        Ok(self.read()?.users.into_keys().collect())
    }

    fn failed(&self) -> impl Fn(io::Error) -> AccountsError + '_ {
        |source| AccountsError::Io { path: self.path.clone(), source }
    }

    fn stamp(&self) -> io::Result<Option<Stamp>> {
        let metadata = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        Ok(Some(Stamp {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        }))
    }

    fn read(&self) -> Result<Content, AccountsError> {
        let Some(stamp) = self.stamp().map_err(self.failed())? else { return Ok(Content::default()) };
        if stamp.length > MAX_FILE {
            return Err(self.failed()(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 4 MiB")));
        }
        let text = fs::read_to_string(&self.path).map_err(self.failed())?;
        let mut content = Content::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || AccountsError::Line { path: self.path.clone(), line: index + 1 };
            let (user, secret) = line.split_once(':').ok_or_else(wrong)?;
            if user == SEED {
                content.seed = BASE64.decode(secret).map_err(|_| wrong())?;
            } else {
                let user = normalised(user).ok_or_else(wrong)?;
                let (secret, once) = match secret.split_once(ONCE) {
                    Some((secret, until)) => (secret, Some(until.parse().map_err(|_| wrong())?)),
                    None => (secret, None),
                };
                let secret = Secret::from_text(secret).ok_or_else(wrong)?;
                content.users.insert(user, Account { secret, once });
            }
        }
        Ok(content)
    }

    /// Replaces the file as a whole, so that no reader ever sees half of it.
    fn write(&self, mut content: Content) -> Result<(), AccountsError> {
        if content.seed.is_empty() {
            content.seed = rand::random::<[u8; 32]>().to_vec();
        }
        let mut text = String::from(HEADING);
        text.push_str(&format!("{SEED}:{}\n", BASE64.encode(&content.seed)));
        for (user, account) in &content.users {
            let once = account.once.map(|until| format!("{ONCE}{until}")).unwrap_or_default();
            text.push_str(&format!("{user}:{}{once}\n", account.secret.to_text()));
        }
        write_private(&self.path, text.as_bytes()).map_err(self.failed())
    }

    /// The current content; the last good one if the file has become unreadable.
    fn current(&self) -> std::sync::MutexGuard<'_, Cache> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.stamp().ok().flatten();
        if stamp != cache.stamp || cache.content.seed.is_empty() {
            match self.read() {
                Ok(content) => cache.content = content,
                Err(error) => {
                    let reason =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!("keeping the accounts as they were: {error} {reason}");
                }
            }
            cache.stamp = stamp;
            if cache.content.seed.is_empty() {
                cache.content.seed = rand::random::<[u8; 32]>().to_vec();
            }
        }
        cache
    }
}

impl Secrets for Accounts {
    fn secret(&self, user: &str) -> (Secret, bool) {
        let cache = self.current();
        match cache.content.users.get(user).filter(|account| !account.is_over(now())) {
            Some(account) => (account.secret.clone(), true),
            None => (Secret::of_nobody(user, &cache.content.seed), false),
        }
    }
}

/// Writes a file that only its owner can read: beside its place, then moved there.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{:08x}.new", rand::random::<u32>()));
    let beside = path.with_file_name(name);
    let written = create_private(&beside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        // Nothing else can be done about a leftover.
        let _ = fs::remove_file(&beside);
    }
    moved
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts");
        (folder, path)
    }

    #[test]
    fn accounts_are_kept_without_passwords_and_privately() {
        let (_folder, path) = file();
        let accounts = Accounts::new(&path);
        accounts.set("Agent-1", "s3cret").unwrap();
        accounts.set("orchestrator", "other").unwrap();
        assert_eq!(accounts.list().unwrap(), ["agent-1", "orchestrator"]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(accounts.remove("AGENT-1").unwrap());
        assert!(!accounts.remove("agent-1").unwrap());
        assert_eq!(accounts.list().unwrap(), ["orchestrator"]);
    }

    #[test]
    fn a_change_by_another_process_is_seen() {
        let (_folder, path) = file();
        let server = Accounts::new(&path);
        assert!(!server.secret("agent").1);
        Accounts::new(&path).set("agent", "one").unwrap();
        let (secret, known) = server.secret("agent");
        assert!(known && secret.opens_with("one"));
        Accounts::new(&path).set("agent", "two").unwrap();
        assert!(server.secret("agent").0.opens_with("two"));
        Accounts::new(&path).remove("agent").unwrap();
        assert!(!server.secret("agent").1);
    }

    #[test]
    fn a_broken_edit_keeps_the_last_good_content_and_names_the_line() {
        let (_folder, path) = file();
        let accounts = Accounts::new(&path);
        accounts.set("agent", "one").unwrap();
        assert!(accounts.secret("agent").1);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("somebody:clear-password\n");
        fs::write(&path, text).unwrap();
        assert!(accounts.secret("agent").1);
        let error = accounts.list().unwrap_err().to_string();
        assert!(error.contains("accounts:4: not an account"), "{error}");
    }

    #[test]
    fn an_invitation_opens_once_and_in_time() {
        let (_folder, path) = file();
        let accounts = Accounts::new(&path);
        accounts.invite("Agent", "one-time secret", now() + 60).unwrap();
        assert!(accounts.is_waiting("agent") && accounts.secret("agent").1);
        assert_eq!(accounts.waiting().unwrap().len(), 1);
        assert!(matches!(accounts.redeem("agent", "short"), Err(AccountsError::BadPassword)));
        accounts.redeem("agent", "a password of its own").unwrap();
        assert!(!accounts.is_waiting("agent"));
        let (secret, known) = accounts.secret("agent");
        assert!(known && secret.opens_with("a password of its own") && !secret.opens_with("one-time secret"));
        let again = accounts.redeem("agent", "another password of its own");
        assert!(matches!(again, Err(AccountsError::NotWaiting { .. })));
        accounts.invite("late", "one-time secret", now() - 1).unwrap();
        assert!(!accounts.secret("late").1, "it is over");
        let late = accounts.redeem("late", "a password of its own");
        assert!(matches!(late, Err(AccountsError::NotWaiting { .. })));
    }

    #[test]
    fn impossible_accounts_are_refused() {
        let (_folder, path) = file();
        let accounts = Accounts::new(&path);
        assert!(matches!(accounts.set("a@b", "x"), Err(AccountsError::BadUser { .. })));
        assert!(matches!(accounts.set("", "x"), Err(AccountsError::BadUser { .. })));
        assert!(matches!(accounts.set("a", ""), Err(AccountsError::EmptyPassword { .. })));
        assert!(!path.exists());
    }
}
