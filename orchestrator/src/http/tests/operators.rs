//! Health, figures, lists, the page for people, and pages of other origins.

use std::sync::Arc;

use wps_remote_protocol::AgentId;

use super::world::{catalogue, world};
use super::wps::{at_once, never};
use crate::driver::{AgentView, Overview};
use crate::encoding::fixtures::everything;
use crate::http::HttpConfig;

fn overview(connected: bool) -> Arc<Overview> {
    let agent = AgentView {
        id: AgentId::new("<b>gis@host1"),
        software: "wps-remote-agent 0.1.0".into(),
        account: None,
        processes: vec!["test:Everything".into()],
        load: None,
        executions: vec![],
        ready: true,
        conflicts: vec![],
        cannot: &[],
        drained: None,
    };
    Arc::new(Overview { connected, store_works: true, agents: vec![agent], ..Overview::default() })
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let world = world(HttpConfig::default(), never).await;
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    world.overview.send_replace(overview(true));
    let good = world.get("/health").await;
    let body = parse(good.text());
    assert_eq!((good.status, &body["status"], &body["agents"]), (200, &"ok".into(), &1.into()));
    world.overview.send_replace(overview(false));
    let bad = world.get("/health").await;
    assert_eq!((bad.status, &parse(bad.text())["checks"]["xmpp"]), (503, &"failed".into()));
    let agents = world.get("/agents").await;
    assert_eq!(parse(agents.text())["agents"][0]["id"], "<b>gis@host1");
}

#[tokio::test]
async fn figures_count_requests_by_operation() {
    let world = world(HttpConfig::default(), never).await;
    world.get("/wps?service=WPS&request=GetCapabilities").await;
    world.get("/wps").await;
    world.get("/nowhere").await;
    let page = world.get("/metrics").await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "wps_http_requests_total{operation=\"GetCapabilities\",status=\"200\"} 1",
        "wps_http_requests_total{operation=\"unknown\",status=\"400\"} 1",
        "wps_http_requests_total{operation=\"other\",status=\"404\"} 1",
    ] {
        assert!(page.text().contains(line), "{line}\n{}", page.text());
    }
}

#[tokio::test]
async fn jobs_are_listed() {
    let world = world(HttpConfig::default(), at_once).await;
    for _ in 0..3 {
        world.get("/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything").await;
    }
    let list = world.get("/jobs?limit=2").await;
    let list: serde_json::Value = serde_json::from_str(list.text()).unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2);
    assert_eq!((&list["jobs"][0]["state"], &list["jobs"][0]["percent"]), (&"successful".into(), &100.into()));
    let id = list["jobs"][0]["id"].as_str().unwrap();
    let one = world.get(&format!("/jobs/{id}")).await;
    let one: serde_json::Value = serde_json::from_str(one.text()).unwrap();
    assert!(one["id"] == *id && one["log"].is_array(), "{one}");
    for unknown in ["/jobs/00000000-0000-4000-8000-000000000000", "/jobs/x"] {
        assert_eq!(world.get(unknown).await.status, 404, "{unknown}");
    }
}

#[tokio::test]
async fn the_page_is_escaped_and_complete() {
    let world = world(HttpConfig::default(), never).await;
    world.overview.send_replace(overview(true));
    let page = world.get("/").await;
    assert_eq!(page.status, 200);
    let text = page.text();
    assert!(
        text.contains("Everything &lt;at once&gt;")
            && text.contains("&lt;b&gt;gis@host1")
            && !text.contains("<b>gis")
    );
    assert!(text.contains("identifier=test%3AEverything"));
    world.catalogue.send_replace(Arc::new(catalogue([], 9)));
    assert!(world.get("/").await.text().contains("None yet"));
    assert_eq!(world.send("POST", "/health", &[], b"").await.status, 405);
}

#[tokio::test]
async fn quirk_15_browsers_of_other_origins_may_ask() {
    let world = world(HttpConfig::default(), never).await;
    let asked = [
        ("Origin", "https://map.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type, x-own"),
    ];
    let preflight = world.send("OPTIONS", "/wps", &asked, b"").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(preflight.header("access-control-allow-headers"), "content-type, x-own");
    assert!(preflight.header("access-control-allow-methods").contains("POST"));
    let plain = world.send("GET", "/wps", &asked[..1], b"").await;
    assert_eq!(plain.header("access-control-allow-origin"), "*", "errors must be readable too");
    assert_eq!(plain.header("x-request-id").len(), 32);

    let config = HttpConfig { cors_origins: vec!["https://map.example".into()], ..HttpConfig::default() };
    let world = super::world::world(config, never).await;
    let known = world.send("GET", "/wps", &asked[..1], b"").await;
    assert_eq!(known.header("access-control-allow-origin"), "https://map.example");
    let other = world.send("GET", "/wps", &[("Origin", "https://evil.example")], b"").await;
    assert_eq!((other.header("access-control-allow-origin"), other.header("vary")), ("", "Origin"));
}

#[tokio::test]
async fn a_store_that_fails_is_a_passing_fault_and_tells_nothing_of_ours() {
    let world = world(HttpConfig::default(), never).await;
    world.store.close().await;
    let answer = world.get("/wps?service=WPS&version=1.0.0&request=GetExecutions").await;
    assert!(!answer.header("x-request-id").is_empty());
    let text = answer.exception(503, "ServerBusy", "");
    assert!(
        text.contains("the job store cannot be reached at present") && !text.contains("jobs.sqlite"),
        "{text}"
    );
    assert!(
        world
            .get("/wps?service=WPS&request=GetCapabilities")
            .await
            .text()
            .contains(&everything().id.to_string())
    );
}
