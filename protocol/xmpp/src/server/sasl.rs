//! The server's side of a login: PLAIN, SCRAM-SHA-1 and SCRAM-SHA-256 as a machine of messages. Own, because the
//! `sasl` crate's server half refuses the `n,,` that clients on plain connections send. Knows no stanzas.

use super::scram::{Hash, Secret, equal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use xmpp_parsers::jid::NodePart;

/// Where secrets come from.
pub(super) trait Secrets {
    /// The secret of a user; for unknown ones something that looks alike, and `false`.
    fn secret(&self, user: &str) -> (Secret, bool);
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Challenge(Vec<u8>),
    /// Logged in as this user; the bytes prove that we know the secret too.
    Success(String, Vec<u8>),
    /// Refused; the name that was given, as far as it could be read.
    Refused(String),
}

/// One attempt to log in.
pub(super) enum Exchange {
    Plain,
    Scram { hash: Hash, first: Option<Box<First>> },
}

/// What the second message of SCRAM is checked against.
pub(super) struct First {
    header: String,
    messages: String,
    nonce: String,
    user: String,
    secret: Secret,
    known: bool,
}

/// Names of the mechanisms, strongest first.
pub(super) const SCRAM: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-1"];
pub(super) const PLAIN: &str = "PLAIN";

impl Exchange {
    /// An exchange by the name of its mechanism. `plain` says whether a password may travel here.
    pub(super) fn new(mechanism: &str, plain: bool) -> Option<Self> {
        match mechanism {
            "SCRAM-SHA-256" => Some(Self::Scram { hash: Hash::Sha256, first: None }),
            "SCRAM-SHA-1" => Some(Self::Scram { hash: Hash::Sha1, first: None }),
            PLAIN if plain => Some(Self::Plain),
            _ => None,
        }
    }

    /// Takes a message of the client. `nonce` is fresh random text.
    pub(super) fn step(&mut self, message: &[u8], nonce: &str, secrets: &dyn Secrets) -> Step {
        let Ok(message) = std::str::from_utf8(message) else { return Step::Refused(String::new()) };
        match self {
            Self::Plain => plain(message, secrets),
            Self::Scram { first: first @ None, .. } => match First::read(message, nonce, secrets) {
                None => Step::Refused(String::new()),
                Some((state, challenge)) => {
                    *first = Some(Box::new(state));
                    Step::Challenge(challenge.into_bytes())
                }
            },
            Self::Scram { hash, first } => match first.take() {
                None => Step::Refused(String::new()),
                Some(first) => match first.verify(message, *hash) {
                    Some(proof) => Step::Success(first.user, proof),
                    None => Step::Refused(first.user),
                },
            },
        }
    }
}

/// RFC 4616: `[authzid] NUL authcid NUL passwd`.
fn plain(message: &str, secrets: &dyn Secrets) -> Step {
    let mut parts = message.split('\0');
    let (Some(_), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Step::Refused(String::new());
    };
    let Some(user) = normalised(user) else { return Step::Refused(user.to_owned()) };
    let (secret, known) = secrets.secret(&user);
    // Both are always computed, so that time does not tell who exists.
    if secret.opens_with(password) & known { Step::Success(user, Vec::new()) } else { Step::Refused(user) }
}

/// Accounts are local parts of JIDs, which compare after preparation (RFC 7622 §3.3).
pub(super) fn normalised(user: &str) -> Option<String> {
    NodePart::new(user).ok().map(|node| node.as_str().to_owned())
}

impl First {
    /// RFC 5802 §7, client-first-message: `n,[a=authzid],n=user,r=nonce`.
    fn read(message: &str, nonce: &str, secrets: &dyn Secrets) -> Option<(Self, String)> {
        let mut parts = message.splitn(3, ',');
        let (flag, authzid, bare) = (parts.next()?, parts.next()?, parts.next()?);
        // No channel binding is offered, so `p=` is an error and `y` is honest.
        if !matches!(flag, "n" | "y") {
            return None;
        }
        let user = attribute(bare, "n=")?.replace("=2C", ",").replace("=3D", "=");
        let user = normalised(&user)?;
        let nonce = format!("{}{nonce}", attribute(bare, "r=").filter(|nonce| !nonce.is_empty())?);
        let (secret, known) = secrets.secret(&user);
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&secret.salt), secret.iterations);
        let messages = format!("{bare},{challenge}");
        Some((Self { header: format!("{flag},{authzid},"), messages, nonce, user, secret, known }, challenge))
    }

    /// client-final-message: `c=header,r=nonce,p=proof`. Gives the server's own proof.
    fn verify(&self, message: &str, hash: Hash) -> Option<Vec<u8>> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let header = BASE64.decode(attribute(without_proof, "c=")?).ok()?;
        if header != self.header.as_bytes() || attribute(without_proof, "r=")? != self.nonce {
            return None;
        }
        let messages = format!("{},{without_proof}", self.messages);
        let keys = self.secret.keys(hash);
        let signature = hash.hmac(&keys.stored, messages.as_bytes());
        let proof = BASE64.decode(proof).ok().filter(|proof| proof.len() == signature.len())?;
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        if !(equal(&hash.digest(&client_key), &keys.stored) & self.known) {
            return None;
        }
        let proof = hash.hmac(&keys.server, messages.as_bytes());
        Some(format!("v={}", BASE64.encode(proof)).into_bytes())
    }
}

fn attribute<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sasl::client::Mechanism;
    use sasl::client::mechanisms::{Plain, Scram};
    use sasl::common::scram::{Sha1, Sha256};
    use sasl::common::{ChannelBinding, Credentials};

    struct One(Secret);
    impl Secrets for One {
        fn secret(&self, user: &str) -> (Secret, bool) {
            if user == "agent" { (self.0.clone(), true) } else { (Secret::of_nobody(user, b"seed"), false) }
        }
    }

    fn credentials(user: &str, password: &str, binding: ChannelBinding) -> Credentials {
        Credentials::default().with_username(user).with_password(password).with_channel_binding(binding)
    }

    fn converse(client: &mut dyn Mechanism, exchange: &mut Exchange) -> Step {
        let secrets = One(Secret::of_password("right", [1; 16]));
        match exchange.step(&client.initial(), "servernonce", &secrets) {
            Step::Challenge(challenge) => {
                let answer = client.response(&challenge).unwrap();
                exchange.step(&answer, "unused", &secrets)
            }
            other => other,
        }
    }

    #[test]
    fn every_mechanism_lets_in_the_right_password_only() {
        for (user, password, welcome) in [
            ("agent", "right", true),
            ("Agent", "right", true),
            ("agent", "wrong", false),
            ("nobody", "right", false),
        ] {
            for binding in [ChannelBinding::None, ChannelBinding::Unsupported] {
                let mut sha256 =
                    Scram::<Sha256>::from_credentials(credentials(user, password, binding.clone())).unwrap();
                let mut sha1 =
                    Scram::<Sha1>::from_credentials(credentials(user, password, binding.clone())).unwrap();
                let mut plain = Plain::from_credentials(credentials(user, password, binding)).unwrap();
                let clients: [(&str, &mut dyn Mechanism); 3] =
                    [("SCRAM-SHA-256", &mut sha256), ("SCRAM-SHA-1", &mut sha1), ("PLAIN", &mut plain)];
                for (name, client) in clients {
                    let step = converse(client, &mut Exchange::new(name, true).unwrap());
                    match step {
                        Step::Success(as_user, proof) => {
                            assert!(welcome, "{name} let in {user} with {password}");
                            assert_eq!(as_user, "agent");
                            client.success(&proof).unwrap_or_else(|e| panic!("{name}: {e}"));
                        }
                        other => assert!(!welcome, "{name} refused {user}: {other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_users_get_a_challenge_like_everybody() {
        let secrets = One(Secret::of_password("right", [1; 16]));
        let challenge = |user: &str| {
            let mut exchange = Exchange::new("SCRAM-SHA-256", false).unwrap();
            let Step::Challenge(challenge) =
                exchange.step(format!("n,,n={user},r=abc").as_bytes(), "x", &secrets)
            else {
                panic!("no challenge for {user}")
            };
            String::from_utf8(challenge).unwrap()
        };
        assert_eq!(challenge("eve"), challenge("eve"));
        assert_eq!(challenge("eve").len(), challenge("agent").len());
    }

    #[test]
    fn garbage_is_refused() {
        let secrets = One(Secret::of_password("right", [1; 16]));
        for garbage in
            ["", "n", "n,,", "n,,n=agent", "p=tls-unique,,n=agent,r=x", "n,,n=agent,r=", "\u{1}\u{2}"]
        {
            let mut exchange = Exchange::new("SCRAM-SHA-1", false).unwrap();
            assert!(
                matches!(exchange.step(garbage.as_bytes(), "n", &secrets), Step::Refused(_)),
                "{garbage}"
            );
        }
        let mut exchange = Exchange::new("SCRAM-SHA-1", false).unwrap();
        assert!(matches!(exchange.step(b"n,,n=agent,r=x", "y", &secrets), Step::Challenge(_)));
        assert_eq!(exchange.step(b"c=biws,r=other,p=AAAA", "y", &secrets), Step::Refused("agent".into()));
        assert!(Exchange::new("PLAIN", false).is_none());
        assert!(Exchange::new("ANONYMOUS", true).is_none());
    }
}
