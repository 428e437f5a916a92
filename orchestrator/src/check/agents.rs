//! The doctor's look at the agents: what they see of the shared folder, and what time it is there.

use std::path::Path;
use std::time::{Duration, Instant};

use wps_remote_protocol::native::probe::{self, Probe, Probed};
use wps_remote_xmpp::muc::Muc;
use wps_remote_xmpp::{BareJid, parse_payload, payload};

use super::{Finding, Verdict, add};

/// How long an agent may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// A network file system may show a new file a little later.
const SHOWN: Duration = Duration::from_secs(5);
/// A clock that is off by more is worth a word (milliseconds).
const SKEW_MS: u64 = 5_000;
/// Most agents that are asked.
const ASKED: usize = 50;

/// Asks each of these agents.
pub(super) async fn examine(
    muc: &Muc,
    room: &BareJid,
    agents: &[String],
    shared: Option<&Path>,
    findings: &mut Vec<Finding>,
) {
    if agents.is_empty() {
        let remedy = "start `wps-remote-agent run` on the hosts that compute; then this examines the shared folder from there";
        add(findings, "agents", Verdict::Unwise, "none is online", remedy);
    }
    for (n, agent) in agents.iter().take(ASKED).enumerate() {
        let file = format!(".check-{}-{n}", std::process::id());
        let text = format!("written by the orchestrator's check for {agent}").chars().take(100).collect();
        let probe = Probe { file, text };
        let (verdict, what, remedy) = match ask(muc, room, agent, shared, &probe).await {
            Ok((probed, took, sent)) => judge(&probed, took, sent, shared, &probe).await,
            Err(why) => (
                Verdict::Wrong,
                why,
                "look at the agent's log; it must trust our account (trusted_orchestrators in remote.config)",
            ),
        };
        add(findings, "agents", verdict, format!("{agent}: {what}"), remedy);
        if let Some(shared) = shared {
            for name in [probe.file.clone(), format!("{}.answer", probe.file)] {
                // What was never written need not be removed.
                let _ = std::fs::remove_file(shared.join(name));
            }
        }
    }
}

async fn ask(
    muc: &Muc,
    room: &BareJid,
    agent: &str,
    shared: Option<&Path>,
    probe: &Probe,
) -> Result<(Probed, Duration, u64), String> {
    if let Some(shared) = shared {
        // That it cannot be written here has been said already.
        let _ = std::fs::write(shared.join(&probe.file), &probe.text);
    }
    let question = probe::encode_probe(probe).map_err(|error| error.to_string())?;
    let (begun, sent) = (Instant::now(), clock_ms());
    let answer = muc.request(room, agent, payload(question.name, &question.json), ANSWER).await;
    let took = begun.elapsed();
    let answer = answer.map_err(|error| format!("does not answer the check: {error}"))?;
    let (_, json) = answer.as_ref().and_then(parse_payload).ok_or("answers something else")?;
    Ok((probe::decode_probed(&json).map_err(|error| error.to_string())?, took, sent))
}

/// What an answer means, and what to do.
async fn judge(
    probed: &Probed,
    took: Duration,
    sent_ms: u64,
    shared: Option<&Path>,
    probe: &Probe,
) -> (Verdict, String, &'static str) {
    let same = "[results] shared_dir here and wps_execution_shared_dir there must be one folder that both may write; without one, set shared_dir = none";
    if let (Some(shared), None) = (shared, &probed.fault) {
        let answer = shared.join(format!("{}.answer", probe.file));
        let until = Instant::now() + SHOWN;
        while std::fs::read_to_string(&answer).ok().as_ref() != Some(&probe.text) {
            if Instant::now() >= until {
                return (
                    Verdict::Wrong,
                    format!("what it wrote does not show here as {}", answer.display()),
                    same,
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    } else if let (Some(_), Some(fault)) = (shared, &probed.fault) {
        return (Verdict::Wrong, format!("does not share the folder: {fault}"), same);
    }
    let half = u64::try_from(took.as_millis() / 2).unwrap_or(u64::MAX);
    let skew = probed.clock_ms.abs_diff(sent_ms.saturating_add(half));
    if skew > SKEW_MS.saturating_add(half) {
        let way = if probed.clock_ms > sent_ms { "ahead" } else { "behind" };
        let what = format!("its clock is {:.1} s {way} of ours", skew as f64 / 1000.0);
        let remedy = "let both hosts follow a time server; no job fails for it, but logs and files of both cannot be compared";
        return (Verdict::Unwise, what, remedy);
    }
    let what = if shared.is_some() {
        "reads and writes the shared folder; its clock agrees with ours"
    } else {
        "answers; its clock agrees with ours"
    };
    (Verdict::Good, what.to_owned(), "")
}

#[expect(clippy::disallowed_methods, reason = "the wall clock is what is compared")]
fn clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_and_a_folder_are_judged() {
        let folder = tempfile::tempdir().unwrap();
        let probe = Probe { file: ".check-1".into(), text: "x".into() };
        let half_a_second = Duration::from_millis(500);
        let told = |clock_ms, fault: Option<&str>| Probed { clock_ms, fault: fault.map(str::to_owned) };
        let answer = |probed: Probed, shared: Option<&Path>| {
            let shared = shared.map(Path::to_owned);
            let probe = probe.clone();
            async move { judge(&probed, half_a_second, 1_000_000, shared.as_deref(), &probe).await }
        };
        let (verdict, what, _) = answer(told(1_000_250, Some("no folder")), Some(folder.path())).await;
        assert!(verdict == Verdict::Wrong && what.contains("no folder"), "{what}");
        std::fs::write(folder.path().join(".check-1.answer"), "x").unwrap();
        assert_eq!(answer(told(1_005_000, None), Some(folder.path())).await.0, Verdict::Good);
        let (verdict, what, remedy) = answer(told(1_060_250, None), Some(folder.path())).await;
        assert!(
            verdict == Verdict::Unwise && what.contains("60.0 s ahead") && remedy.contains("time server")
        );
        assert_eq!(answer(told(1_000_000, Some("none")), None).await.0, Verdict::Good);
    }
}
