//! Who may do what, seen from outside: logins, processes that are not for everybody, jobs and results of others, narrow
//! tokens, shared links.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::world::{Answer, World, world_with};
use super::wps::at_once;
use crate::access::tokens::{self, NewToken, Use};
use crate::access::{AccessConfig, Catalog, OPERATOR, Pattern, Role, Rules, users};
use crate::engine::job::Timestamp;
use crate::http::HttpConfig;

const PASSWORD: &str = "correct horse";
const EXECUTE: &str = "/wps?service=WPS&version=1.0.0&request=Execute&Identifier=default:GdalContour&DataInputs=interval=150&storeExecuteResponse=true&status=true";

fn rules(catalog: Catalog, anonymous: Option<&str>) -> Rules {
    let guest = Role { processes: vec![Pattern::new("other:*")], ..Role::user("guest") };
    Rules::new(vec![Role::user("staff"), guest], BTreeMap::new(), catalog, anonymous.map(str::to_owned))
}

async fn start(folder: &Path, rules: Rules) -> World {
    let users_file = folder.join("users");
    for (name, role) in [("ann", "staff"), ("bob", "staff"), ("olga", OPERATOR), ("gus", "guest")] {
        users::set(&users_file, name, Some(PASSWORD), Some(vec![role.to_owned()])).unwrap();
    }
    let access =
        AccessConfig { rules, users_file, tokens_file: folder.join("tokens"), ..AccessConfig::default() };
    world_with(HttpConfig::default(), access, at_once).await
}

async fn by(world: &World, user: &str, path: &str) -> Answer {
    let credentials = format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")));
    world.send("GET", path, &[("Authorization", &credentials)], b"").await
}

#[tokio::test]
async fn whoever_must_log_in_is_told_how_and_monitors_need_not() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), rules(Catalog::Hide, None)).await;
    for path in ["/wps?service=WPS&request=GetCapabilities", "/", "/jobs", "/agents", "/wps/2.0.0"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"WPS\", charset=\"UTF-8\"");
    }
    assert_ne!(world.get("/health").await.status, 401);
    assert_eq!(world.get("/metrics").await.status, 200);
    assert_eq!(by(&world, "ann", "/wps?service=WPS&request=GetCapabilities").await.status, 200);
    let wrong = format!("Basic {}", STANDARD.encode("ann:wrong horse"));
    let refused = world.send("GET", "/wps", &[("Authorization", &wrong)], b"").await;
    assert_eq!(refused.status, 401);
    assert!(!refused.text().contains("horse"));
}

#[tokio::test]
async fn whoever_guesses_through_a_proxy_locks_out_nobody_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = "127.0.0.1".parse().unwrap();
    let users_file = folder.path().join("users");
    users::set(&users_file, "ann", Some(PASSWORD), None).unwrap();
    let access = AccessConfig {
        rules: rules(Catalog::Hide, None),
        users_file,
        proxies: vec![proxy],
        ..AccessConfig::default()
    };
    let http = HttpConfig { trusted_proxies: vec![proxy], ..HttpConfig::default() };
    let world = world_with(http, access, at_once).await;
    let ask = async |client: &str, password: &str| {
        let credentials = format!("Basic {}", STANDARD.encode(format!("ann:{password}")));
        let headers = [("Authorization", credentials.as_str()), ("X-Forwarded-For", client)];
        world.send("GET", "/wps?service=WPS&request=GetCapabilities", &headers, b"").await.status
    };
    for _ in 0..10 {
        assert_eq!(ask("203.0.113.1", "a guess").await, 401);
    }
    assert_eq!(ask("203.0.113.1", "a guess").await, 429);
    assert_eq!(ask("203.0.113.2", PASSWORD).await, 200);
}

#[tokio::test]
async fn jobs_and_results_are_their_owners_and_operators_see_all() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), rules(Catalog::Hide, Some("guest"))).await;
    assert_eq!(by(&world, "ann", EXECUTE).await.status, 200);
    let job = world.newest();
    let status = format!("/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={job}");
    let status2 = format!("/wps?service=WPS&version=2.0.0&request=GetStatus&jobid={job}");
    let dismiss = format!("/wps?service=WPS&version=1.0.0&request=Dismiss&executionId={job}");
    assert_eq!(by(&world, "ann", &status).await.status, 200);
    assert_eq!(by(&world, "olga", &status2).await.status, 200);
    for user in ["bob", "gus"] {
        by(&world, user, &status).await.exception(400, "InvalidParameterValue", "executionId");
        assert!(by(&world, user, &status2).await.text().contains("NoSuchJob"));
        by(&world, user, &dismiss).await.exception(400, "InvalidParameterValue", "executionId");
        assert_eq!(by(&world, user, &format!("/jobs/{job}")).await.status, 404);
    }
    assert_eq!(world.get(&status).await.status, 400, "nobody in particular is not ann");
    let listed = |answer: Answer| answer.text().contains(&job.to_string());
    assert!(listed(by(&world, "ann", "/jobs").await) && listed(by(&world, "olga", "/jobs").await));
    assert!(!listed(by(&world, "bob", "/jobs").await) && !listed(world.get("/jobs").await));
    let executions = "/wps?service=WPS&version=1.0.0&request=GetExecutions";
    assert!(listed(by(&world, "ann", executions).await) && !listed(by(&world, "bob", executions).await));
    assert_eq!(by(&world, "ann", "/agents").await.status, 403);
    assert_eq!(by(&world, "olga", "/agents").await.status, 200);
}

#[tokio::test]
async fn a_shared_link_opens_one_jobs_results_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), rules(Catalog::Hide, Some("guest"))).await;
    by(&world, "ann", EXECUTE).await;
    let job = world.newest();
    let credentials = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")));
    let path = format!("/jobs/{job}/share?hours=2");
    let of_bob = world.send("POST", &path, &[("Authorization", &credentials("bob"))], b"").await;
    assert_eq!(of_bob.status, 404);
    let shared = world.send("POST", &path, &[("Authorization", &credentials("ann"))], b"").await;
    assert_eq!(shared.status, 200, "{}", shared.text());
    let shared: serde_json::Value = serde_json::from_str(shared.text()).unwrap();
    let links = shared["links"].as_object().unwrap();
    assert!(!links.is_empty(), "{shared}");
    for link in links.values() {
        let link = link.as_str().unwrap();
        let (bare, _) = link.split_once('?').unwrap();
        assert_eq!(world.get(link).await.status, 200, "{link}");
        assert_eq!(by(&world, "ann", bare).await.status, 200);
        assert_eq!(by(&world, "bob", bare).await.status, 404);
        let asked = world.get(bare).await;
        assert_eq!((asked.status, asked.header("www-authenticate").is_empty()), (401, false));
        let forged = link.replace("until=", "until=9");
        assert_eq!(world.get(&forged).await.status, 401, "{forged}");
    }
    let other = format!("/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={job}");
    assert_eq!(world.get(&other).await.status, 400);
}

#[tokio::test]
async fn processes_that_are_not_for_everybody_are_hidden_or_ask_for_a_login() {
    let describe = "/wps?service=WPS&version=1.0.0&request=DescribeProcess&Identifier=default:GdalContour";
    let capabilities = "/wps?service=WPS&request=GetCapabilities";
    for (mode, listed, described, executed) in [
        (Catalog::Hide, false, (400, 400), (400, 400)),
        (Catalog::Challenge, true, (200, 200), (401, 403)),
        (Catalog::Mixed, false, (401, 403), (401, 403)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let world = start(folder.path(), rules(mode, Some("guest"))).await;
        let has = |answer: &Answer| answer.text().contains("default:GdalContour");
        // Ann first: what is kept for her must not be served to others.
        assert!(has(&by(&world, "ann", capabilities).await), "{mode:?}");
        assert_eq!(has(&world.get(capabilities).await), listed, "{mode:?}");
        assert_eq!(has(&by(&world, "gus", capabilities).await), listed, "{mode:?}");
        let statuses = |a: Answer, b: Answer| (a.status, b.status);
        assert_eq!(by(&world, "ann", describe).await.status, 200);
        let got = statuses(world.get(describe).await, by(&world, "gus", describe).await);
        assert_eq!(got, described, "{mode:?}");
        let got = statuses(world.get(EXECUTE).await, by(&world, "gus", EXECUTE).await);
        assert_eq!(got, executed, "{mode:?}");
        let all = "/wps?service=WPS&version=1.0.0&request=DescribeProcess&Identifier=ALL";
        assert!(has(&by(&world, "ann", all).await));
        assert_eq!(has(&by(&world, "gus", all).await), listed, "{mode:?}");
    }
}

#[tokio::test]
async fn a_token_reaches_no_further_than_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), rules(Catalog::Hide, None)).await;
    let token = |usage| {
        let new =
            NewToken { name: "t".to_owned(), user: "ann".to_owned(), roles: vec![], usage, expires: None };
        let (_, text) = tokens::create(&folder.path().join("tokens"), new, Timestamp(0)).unwrap();
        format!("Bearer {text}")
    };
    let (read, execute) = (token(Use::Read), token(Use::Execute));
    let ask = async |token: &str, path: &str| {
        world.send("GET", path, &[("Authorization", token)], b"").await.status
    };
    assert_eq!(ask(&execute, EXECUTE).await, 200);
    let job = world.newest();
    let status = format!("/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={job}");
    assert_eq!(ask(&read, &status).await, 200);
    assert_eq!(ask(&read, EXECUTE).await, 403);
    let dismiss = format!("/wps?service=WPS&version=1.0.0&request=Dismiss&executionId={job}");
    assert_eq!(ask(&read, &dismiss).await, 403);
    assert_eq!(ask("Bearer wpst_nonsense", &status).await, 401);
}
