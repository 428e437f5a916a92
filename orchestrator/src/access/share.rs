//! Links that open one job's results to whoever holds them, for a while: the job's id and the end of the link are signed
//! with a key of this installation (HMAC-SHA256, RFC 2104).

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::engine::job::{JobId, Timestamp};

/// Bytes of a signature that stand in a link: 128 bits cannot be guessed.
const SHOWN: usize = 16;

/// Signs and checks links.
#[derive(Clone)]
pub struct Shares {
    key: [u8; 32],
}

impl std::fmt::Debug for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shares(…)")
    }
}

impl Shares {
    /// With the key of this installation.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn signature(&self, job: JobId, until: u64) -> String {
        // HMAC takes keys of every length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        mac.update(format!("result {job} {until}").as_bytes());
        mac.finalize().into_bytes().iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The query that opens the results of a job until this moment, to the second.
    pub fn query(&self, job: JobId, until: Timestamp) -> String {
        let until = until.0 / 1000;
        format!("until={until}&signature={}", self.signature(job, until))
    }

    /// Whether a query with these values opens the job's results now.
    pub fn opens(&self, job: JobId, until: &str, signature: &str, now: Timestamp) -> bool {
        let Ok(until) = until.parse::<u64>() else { return false };
        super::tokens::same(&self.signature(job, until), signature)
            && !signature.is_empty()
            && now.0 / 1000 < until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_its_job_until_its_end() {
        let shares = Shares::new([7; 32]);
        let [job, other]: [JobId; 2] =
            ["11111111-1111-4111-8111-111111111111", "22222222-1111-4111-8111-111111111111"]
                .map(|id| id.parse().expect("an id"));
        let query = shares.query(job, Timestamp(90_000));
        let (until, signature) = query.split_once('&').expect("two values");
        let (until, signature) = (&until["until=".len()..], &signature["signature=".len()..]);
        assert!(shares.opens(job, until, signature, Timestamp(89_999)));
        assert!(!shares.opens(job, until, signature, Timestamp(90_000)), "its time is over");
        assert!(!shares.opens(other, until, signature, Timestamp(0)), "another job");
        assert!(!shares.opens(job, "91", signature, Timestamp(0)), "a later end");
        assert!(!Shares::new([8; 32]).opens(job, until, signature, Timestamp(0)), "another installation");
        for wrong in ["", "00", &signature[1..], &signature.to_uppercase().replace(char::is_numeric, "x")] {
            assert!(!shares.opens(job, until, wrong, Timestamp(0)), "{wrong}");
        }
        assert!(!shares.opens(job, "-1", signature, Timestamp(0)));
    }
}
