//! References: what may be fetched is fetched as it is, what may not is refused with the reason.

use std::net::IpAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::policy::is_public;
use super::*;

/// A server that answers every connection with the same bytes and keeps what it was asked.
async fn server(answer: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            let mut chunk = [0; 4096];
            loop {
                let n = stream.read(&mut chunk).await.unwrap_or(0);
                seen.extend_from_slice(&chunk[..n]);
                let text = String::from_utf8_lossy(&seen).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    if n == 0 {
                        break;
                    }
                    continue;
                };
                let length = head
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "))
                    .map_or(0, |l| l.parse().unwrap());
                if body.len() >= length {
                    log.lock().unwrap().push(text);
                    break;
                }
            }
            let _ = stream.write_all(&answer).await;
        }
    });
    (base, asked)
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn references(allow: &[&str], rewrite: &[String]) -> References {
    let allow: Vec<String> = allow.iter().map(|a| (*a).to_owned()).collect();
    let mut policy = Policy::new(&allow, rewrite).unwrap();
    policy.max_bytes = 1000;
    policy.timeout = Duration::from_secs(10);
    References::new(policy)
}

async fn get(references: &References, href: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("in");
    let reference = Reference { href: href.to_owned(), ..Reference::default() };
    match references.fetch(&reference, &Nowhere, &target).await {
        Ok(bytes) => {
            let text = std::fs::read_to_string(&target).unwrap();
            assert_eq!(bytes, text.len() as u64);
            Ok(text)
        }
        Err(error) => {
            assert!(!target.exists(), "nothing half is left");
            Err(error.to_string())
        }
    }
}

#[tokio::test]
async fn an_allowed_place_is_fetched_with_body_and_headers() {
    let (base, asked) = server(ok("hello")).await;
    let references = references(&["127.0.0.1"], &[]);
    assert_eq!(get(&references, &format!("{base}/a?b=c%20d")).await, Ok("hello".into()));
    let folder = tempfile::tempdir().unwrap();
    let post = Reference {
        href: format!("{base}/wfs"),
        body: Some(b"<GetFeature/>".to_vec()),
        headers: vec![("X-Key".into(), "k".into()), ("Host".into(), "evil".into())],
        ..Reference::default()
    };
    references.fetch(&post, &Nowhere, &folder.path().join("x")).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("GET /a?b=c%20d HTTP/1.1"), "{}", asked[0]);
    assert!(
        asked[1].starts_with("POST /wfs HTTP/1.1") && asked[1].ends_with("<GetFeature/>"),
        "{}",
        asked[1]
    );
    assert!(asked[1].contains("x-key: k") && !asked[1].contains("evil"), "{}", asked[1]);
}

#[tokio::test]
async fn a_body_that_lies_elsewhere_is_fetched_first() {
    let (bodies, _) = server(ok("<GetFeature/>")).await;
    let (base, asked) = server(ok("hello")).await;
    let references = references(&["127.0.0.1"], &[]);
    let folder = tempfile::tempdir().unwrap();
    let post = |body: &str| Reference {
        href: format!("{base}/wfs"),
        body_href: Some(body.to_owned()),
        ..Reference::default()
    };
    references.fetch(&post(&bodies), &Nowhere, &folder.path().join("x")).await.unwrap();
    assert!(asked.lock().unwrap()[0].ends_with("<GetFeature/>"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the body does not stay");
    let refused = references.fetch(&post("http://10.0.0.1/"), &Nowhere, &folder.path().join("y")).await;
    assert!(matches!(refused, Err(FetchError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_named() {
    let (base, asked) = server(ok("secret")).await;
    let (redirecting, _) =
        server(format!("HTTP/1.1 302 Found\r\nLocation: {base}/x\r\nContent-Length: 0\r\n\r\n").into_bytes())
            .await;
    for allow in [vec!["*"], vec![]] {
        let error = get(&references(&allow, &[]), &base).await.unwrap_err();
        assert!(error.contains("may not be fetched") && error.contains("[references] allow"), "{error}");
    }
    let port: u16 = redirecting.rsplit_once(':').unwrap().1.parse().unwrap();
    let only = references(&["*", &format!("127.0.0.1:{port}")], &[]);
    let error = get(&only, &redirecting).await.unwrap_err();
    assert!(error.contains("not a public address"), "after a redirect: {error}");
    let error = get(&references(&["*"], &[]), "http://localhost:1/").await.unwrap_err();
    assert!(error.contains("not a public address"), "after name resolution: {error}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn redirects_are_followed_so_far_and_bounds_hold() {
    let (base, _) = server(ok("there")).await;
    let (one, _) =
        server(format!("HTTP/1.1 307 T\r\nLocation: {base}/y\r\nContent-Length: 0\r\n\r\n").into_bytes())
            .await;
    let local = references(&["127.0.0.1"], &[]);
    assert_eq!(get(&local, &one).await, Ok("there".into()));
    let (circle, _) =
        server(b"HTTP/1.1 302 F\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    assert!(get(&local, &circle).await.unwrap_err().contains("redirects"));
    let (large, _) = server(ok(&"x".repeat(1001))).await;
    assert!(get(&local, &large).await.unwrap_err().contains("larger than 1000 bytes"));
    let (endless, _) = server([b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 5000]].concat()).await;
    assert!(get(&local, &endless).await.unwrap_err().contains("larger than 1000 bytes"));
    let (cut, _) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()).await;
    assert!(get(&local, &cut).await.unwrap_err().contains("broke off"));
    let (missing, _) = server(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    assert!(get(&local, &missing).await.unwrap_err().contains("404"));
    for (href, part) in [
        ("ftp://127.0.0.1/x", "only http, https and data"),
        ("file:///etc/passwd", "only http, https and data"),
        ("http://u:p@127.0.0.1/", "password"),
        ("no url", "relative URL"),
    ] {
        let error = get(&local, href).await.unwrap_err();
        assert!(error.contains(part), "{href}: {error}");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let href = format!("http://{}/", listener.local_addr().unwrap());
    let mut policy = Policy::new(&["127.0.0.1".into()], &[]).unwrap();
    policy.timeout = Duration::from_millis(200);
    let error = get(&References::new(policy), &href).await.unwrap_err();
    assert!(error.contains("was not complete"), "{error}");
    drop(listener);
}

#[tokio::test]
async fn rewrites_lead_to_files_and_other_places() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("car.txt"), "car\n").unwrap();
    let (base, asked) = server(ok("wfs")).await;
    let rewrite = [
        format!("https://example.org/car.txt => {}", folder.path().join("car.txt").display()),
        format!("http://geoserver/ => {base}/geoserver"),
    ];
    let references = references(&[], &rewrite);
    assert_eq!(get(&references, "https://example.org/car.txt").await, Ok("car\n".into()));
    assert_eq!(get(&references, "http://geoserver/wfs?x=1").await, Ok("wfs".into()));
    assert!(asked.lock().unwrap()[0].starts_with("GET /geoserver/wfs?x=1 "));
    assert!(get(&references, "https://example.org/car.txt.bak").await.is_err());
}

#[tokio::test]
async fn nobody_climbs_out_of_what_was_allowed_or_rewritten() {
    let (base, asked) = server(ok("secret")).await;
    let rewrite = [format!("http://geoserver/ => {base}/geoserver/")];
    let rewriting = references(&[], &rewrite);
    let prefixed = references(&[&format!("{base}/data/")], &[]);
    for path in [
        "../manager",
        "wfs/../../manager",
        "%2e%2e/manager",
        "..%2fmanager",
        "..%5Cmanager",
        "a/..\\..\\manager",
        "%2e%2e%2Fmanager",
        "x/..%252f..%252fmanager",
    ] {
        for (references, href) in
            [(&rewriting, format!("http://geoserver/{path}")), (&prefixed, format!("{base}/data/{path}"))]
        {
            if let Err(error) = get(references, &href).await {
                assert!(error.contains("may not be fetched"), "{href}: {error}");
            }
        }
    }
    // What the address itself resolves to stays below; all else was refused.
    let asked = asked.lock().unwrap().clone();
    let first = |text: &String| text.split(' ').nth(1).unwrap().to_owned();
    let paths: Vec<String> = asked.iter().map(first).collect();
    assert!(
        paths.iter().all(|path| ["/geoserver/manager", "/data/manager"].contains(&path.as_str())),
        "{paths:?}"
    );
    assert_eq!(get(&rewriting, "HTTP://GeoServer/wfs").await, Ok("secret".into()), "hosts have no capitals");
    assert_eq!(get(&prefixed, &format!("{base}/data/a..b/c%20d")).await, Ok("secret".into()));
}

#[tokio::test]
async fn a_host_with_several_addresses_is_tried_at_each() {
    let (open, closed) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addresses = [closed.local_addr().unwrap(), open.local_addr().unwrap()];
    drop(closed);
    let stream = fetch::connect(&addresses).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
    assert!(fetch::connect(&addresses[..1]).await.unwrap_err().contains("refused"));
    assert!(fetch::connect(&[]).await.is_err());
}

#[tokio::test]
async fn answers_are_wanted_as_they_are() {
    let (base, asked) = server(ok("plain")).await;
    let references = references(&["127.0.0.1"], &[]);
    let folder = tempfile::tempdir().unwrap();
    let reference = Reference {
        href: base,
        headers: vec![("Accept-Encoding".into(), "gzip".into())],
        ..Reference::default()
    };
    references.fetch(&reference, &Nowhere, &folder.path().join("x")).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked[0].contains("accept-encoding: identity\r\n") && !asked[0].contains("gzip"), "{}", asked[0]);
}

#[tokio::test]
async fn data_urls_hold_their_data() {
    let references = references(&[], &[]);
    assert_eq!(get(&references, "data:text/plain,a%20b").await, Ok("a b".into()));
    assert_eq!(get(&references, "data:;base64,aGVsbG8").await, Ok("hello".into()));
    assert_eq!(get(&references, "DATA:;BASE64,aGVsbG8=").await, Ok("hello".into()));
    assert!(get(&references, "data:nothing").await.unwrap_err().contains("comma"));
    assert!(get(&references, &format!("data:,{}", "x".repeat(1001))).await.unwrap_err().contains("larger"));
}

#[test]
fn special_addresses_are_not_public() {
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.5.5",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "198.18.0.1",
        "240.0.0.1",
        "2001:db8::1",
        "3fff::1",
        "2001:0:a00:1::1",
    ] {
        assert!(!is_public(address.parse::<IpAddr>().unwrap()), "{address}");
    }
    for address in ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
        assert!(is_public(address.parse::<IpAddr>().unwrap()), "{address}");
    }
}

#[test]
fn rules_are_read_strictly() {
    for bad in ["http://x/y", "a b", "host:port", "a/b", "*x"] {
        assert!(Policy::new(&[bad.to_owned()], &[]).is_err(), "{bad}");
    }
    for bad in ["x", "http://a/ => relative", "a => /b"] {
        assert!(Policy::new(&[], &[bad.to_owned()]).is_err(), "{bad}");
    }
}
