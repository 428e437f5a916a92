//! The arithmetic of SCRAM (RFC 5802, RFC 7677) for both hash functions, and secrets in the form in which they are
//! stored. Pure; knows neither files nor the exchange of messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Rounds of hashing for new secrets: the minimum of RFC 7677 §4, which every client supports. Passwords of agents
/// are generated, not chosen, so more rounds would only slow down every login.
pub(super) const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;

/// Hash function of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    pub(super) fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(data).to_vec(),
            Self::Sha256 => Sha256::digest(data).to_vec(),
        }
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        const ANY_LENGTH: &str = "HMAC takes keys of any length";
        match self {
            Self::Sha1 => Hmac::<Sha1>::new_from_slice(key)
                .expect(ANY_LENGTH)
                .chain_update(data)
                .finalize()
                .into_bytes()
                .to_vec(),
            Self::Sha256 => Hmac::<Sha256>::new_from_slice(key)
                .expect(ANY_LENGTH)
                .chain_update(data)
                .finalize()
                .into_bytes()
                .to_vec(),
        }
    }

    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(password, salt, iterations).to_vec(),
            Self::Sha256 => pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec(),
        }
    }

    /// The two keys that a server stores instead of the password (RFC 5802 §3).
    pub(super) fn keys(self, password: &str, salt: &[u8], iterations: u32) -> Keys {
        let salted = self.salted(password.as_bytes(), salt, iterations);
        Keys {
            stored: self.digest(&self.hmac(&salted, b"Client Key")),
            server: self.hmac(&salted, b"Server Key"),
        }
    }
}

/// Compares without telling by the time taken where the difference is.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0u8, |all, (x, y)| std::hint::black_box(all | (x ^ y)));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

/// `StoredKey` and `ServerKey` of one hash function.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) stored: Vec<u8>,
    pub(super) server: Vec<u8>,
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    sha1: Keys,
    sha256: Keys,
}

impl Secret {
    pub(super) fn of_password(password: &str, salt: [u8; SALT_BYTES]) -> Self {
        let keys = |hash: Hash| hash.keys(password, &salt, ITERATIONS);
        Self {
            iterations: ITERATIONS,
            salt: salt.to_vec(),
            sha1: keys(Hash::Sha1),
            sha256: keys(Hash::Sha256),
        }
    }

    /// A secret that no password opens, for users that do not exist; the same for the same user at every try, so
    /// that an attacker cannot tell who exists.
    pub(super) fn of_nobody(user: &str, seed: &[u8]) -> Self {
        let salt = Hash::Sha256.hmac(seed, user.as_bytes())[..SALT_BYTES].to_vec();
        let nothing = |hash: Hash| Keys {
            stored: hash.hmac(seed, b"stored"),
            server: hash.hmac(seed, &[b"server", user.as_bytes()].concat()),
        };
        Self { iterations: ITERATIONS, salt, sha1: nothing(Hash::Sha1), sha256: nothing(Hash::Sha256) }
    }

    pub(super) fn keys(&self, hash: Hash) -> &Keys {
        match hash {
            Hash::Sha1 => &self.sha1,
            Hash::Sha256 => &self.sha256,
        }
    }

    /// Whether this is the password (for PLAIN).
    pub(super) fn opens_with(&self, password: &str) -> bool {
        let keys = Hash::Sha256.keys(password, &self.salt, self.iterations);
        equal(&keys.stored, &self.sha256.stored)
    }

    /// `iterations$salt$stored1$server1$stored256$server256`, binary parts in base64.
    pub(super) fn to_text(&self) -> String {
        let parts =
            [&self.salt, &self.sha1.stored, &self.sha1.server, &self.sha256.stored, &self.sha256.server];
        let parts: Vec<_> = parts.iter().map(|part| BASE64.encode(part)).collect();
        format!("{}${}", self.iterations, parts.join("$"))
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let iterations = parts.next()?.parse().ok().filter(|rounds| (1..=10_000_000).contains(rounds))?;
        let mut binary = |length: usize| {
            let bytes = BASE64.decode(parts.next()?).ok()?;
            (length == 0 || bytes.len() == length).then_some(bytes)
        };
        let salt = binary(0)?;
        let sha1 = Keys { stored: binary(20)?, server: binary(20)? };
        let sha256 = Keys { stored: binary(32)?, server: binary(32)? };
        parts.next().is_none().then_some(Self { iterations, salt, sha1, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 §3.
    #[test]
    fn the_keys_are_those_of_the_standard() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Hash::Sha256.keys("pencil", &salt, 4096);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = Hash::Sha256.hmac(&keys.server, message.as_bytes());
        assert_eq!(BASE64.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_secret_survives_its_text_and_opens_only_with_its_password() {
        let secret = Secret::of_password("pässword", [7; 16]);
        assert!(Secret::from_text(&secret.to_text()).unwrap() == secret);
        assert!(!secret.to_text().contains("ssword"));
        assert!(secret.opens_with("pässword"));
        assert!(!secret.opens_with("password"));
        for broken in ["", "4096", "0$AA==$AA==$AA==$AA==$AA==", "x$y", &format!("{}$", secret.to_text())] {
            assert!(Secret::from_text(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn nobody_has_a_stable_salt_and_no_password() {
        let (first, again) = (Secret::of_nobody("eve", b"seed"), Secret::of_nobody("eve", b"seed"));
        assert_eq!(first.salt, again.salt);
        assert_ne!(first.salt, Secret::of_nobody("bob", b"seed").salt);
        assert!(!first.opens_with(""));
    }

    #[test]
    fn comparison_sees_every_difference() {
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
        assert!(!equal(b"", b"a"));
    }
}
