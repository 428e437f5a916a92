//! The doctor's question to an agent: does it see the shared folder that the orchestrator sees, can it write there, and what
//! time is it there? Apart from the vocabulary of jobs: nothing of it changes a state.

use serde::{Deserialize, Serialize};

use super::{NativeError, Payload, content, decode, encode};

/// Name of the payload of question and answer.
pub const PROBE: &str = "probe";

/// The question. Its file lies in the shared folder, put there by who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Name of the file: `.check-` and at most 60 of `A-Z a-z 0-9 -`. The agent writes the same text to this name with
    /// `.answer` behind it, a file that must not exist.
    pub file: String,
    /// What the file holds: at most 200 bytes.
    pub text: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probed {
    /// The agent's wall clock: milliseconds since 1970-01-01T00:00:00Z.
    pub clock_ms: u64,
    /// What is wrong with the shared folder there, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Writes the question.
pub fn encode_probe(probe: &Probe) -> Result<Payload, NativeError> {
    encode(PROBE, probe)
}

/// Reads the question. Its file is a name, not a path.
pub fn decode_probe(json: &str) -> Result<Probe, NativeError> {
    let probe: Probe = decode(PROBE, json)?;
    let name = probe.file.strip_prefix(".check-").unwrap_or_default();
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain || !(1..=60).contains(&name.len()) || probe.text.len() > 200 {
        return Err(content(PROBE, "`file` is no name of a check, or `text` is too long"));
    }
    Ok(probe)
}

/// Writes the answer.
pub fn encode_probed(probed: &Probed) -> Result<Payload, NativeError> {
    encode(PROBE, probed)
}

/// Reads the answer.
pub fn decode_probed(json: &str) -> Result<Probed, NativeError> {
    let probed: Probed = decode(PROBE, json)?;
    if probed.fault.as_ref().is_some_and(|fault| fault.len() > 2_000) {
        return Err(content(PROBE, "`fault` is too long"));
    }
    Ok(probed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_no_path() {
        let probe = |file: &str| Probe { file: file.into(), text: "x".into() };
        let read = |probe: &Probe| decode_probe(&encode_probe(probe).unwrap().json);
        assert_eq!(read(&probe(".check-1-a")).unwrap(), probe(".check-1-a"));
        for bad in ["", ".check-", "check-1", ".check-../x", ".check-a/b", ".check-a.answer", "/etc/passwd"] {
            assert!(read(&probe(bad)).is_err(), "{bad}");
        }
        assert!(read(&Probe { text: "x".repeat(201), ..probe(".check-1") }).is_err());
        let probed = Probed { clock_ms: 5, fault: Some("none".into()) };
        assert_eq!(decode_probed(&encode_probed(&probed).unwrap().json).unwrap(), probed);
    }
}
