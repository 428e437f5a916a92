//! Bodies and paths that are meant to hurt: a standard exception each, and the service goes on.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{World, read, world};
use super::wps::{at_once, never};
use crate::http::HttpConfig;

async fn still_works(world: &World) {
    world.get("/wps?service=WPS&request=GetCapabilities").await.xml(200);
}

#[tokio::test]
async fn broken_documents_get_reports() {
    let world = world(HttpConfig::default(), at_once).await;
    let bomb = "<!DOCTYPE l [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'>]><l>&b;</l>";
    let xxe = "<!DOCTYPE l [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><l>&a;</l>";
    let deep = "<a>".repeat(50_000);
    for body in [
        bomb,
        xxe,
        &deep,
        "<",
        "<a>",
        "<a></b>",
        "{}",
        "a=b&c=d",
        "\0\0\0",
        "<a>\u{1}</a>",
        "<?xml version='1.0' encoding='UTF-16'?><a/>",
    ] {
        let answer = world.post("/wps", body).await;
        let text = answer.exception(400, "NoApplicableCode", "");
        assert!(!text.contains("root:"), "{text}");
    }
    world.send("POST", "/wps", &[], b"<a>\xFF\xFE</a>").await.exception(400, "NoApplicableCode", "");
    world.send("POST", "/wps", &[], b"\xFF\xFE<\0a\0/\0>\0").await.exception(400, "NoApplicableCode", "");
    let long = world.get(&format!("/wps?service=WPS&request={}", "x".repeat(60_000))).await;
    assert_eq!(long.status, 501);
    assert!(long.body.len() < 10_000, "a client's words are clipped");
    still_works(&world).await;
}

#[tokio::test]
async fn bodies_in_parts_and_forms_are_no_requests() {
    let world = world(HttpConfig::default(), never).await;
    let part = format!(
        "--x\r\nContent-Disposition: form-data; name=\"request\"\r\n\r\n{}\r\n--x--\r\n",
        "y".repeat(100_000)
    );
    for (kind, body) in [
        ("multipart/form-data; boundary=x", part.as_str()),
        (
            "multipart/related; boundary=x; type=\"text/xml\"",
            "--x\r\nContent-Type: text/xml\r\n\r\n<a/>\r\n--x--",
        ),
        ("application/x-www-form-urlencoded", "service=WPS&request=GetCapabilities"),
    ] {
        let refused = world.send("POST", "/wps", &[("Content-Type", kind)], body.as_bytes()).await;
        let text = refused.exception(400, "NoApplicableCode", "");
        assert!(text.contains("is no XML document") && text.len() < 2000, "{text}");
    }
    still_works(&world).await;
}

#[tokio::test]
async fn fifty_megabytes_of_garbage_are_survived() {
    let world = world(HttpConfig::default(), at_once).await;
    let mut body = b"<wps:Execute>".to_vec();
    body.resize(50 << 20, b'x');
    world.send("POST", "/wps", &[], &body).await.exception(400, "NoApplicableCode", "");
    body.resize((50 << 20) + 1, b'x');
    let answer = world.send("POST", "/wps", &[], &body).await;
    assert!(answer.exception(400, "FileSizeExceeded", "").contains("max_body_mb"));
    assert_eq!(answer.header("connection"), "close");
    let soup: Vec<u8> = b"<a><b/></a> ".iter().copied().cycle().take(20 << 20).collect();
    world.send("POST", "/wps", &[], &soup).await.exception(400, "NoApplicableCode", "");
    still_works(&world).await;
}

#[tokio::test]
async fn a_body_without_length_is_bounded_too() {
    let config = HttpConfig { max_body_bytes: 100_000, ..HttpConfig::default() };
    let world = world(config, at_once).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /wps HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 10_000, "y".repeat(10_000));
    for _ in 0..50 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    read(&mut stream).await.exception(400, "FileSizeExceeded", "");
    still_works(&world).await;
}

#[tokio::test]
async fn who_asks_first_is_told_at_once_that_it_is_too_much() {
    let world = world(HttpConfig::default(), at_once).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /wps HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    read(&mut stream).await.exception(400, "FileSizeExceeded", "");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let config = HttpConfig { request_timeout: Duration::from_millis(100), ..HttpConfig::default() };
    let world = world(config, at_once).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /wps HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n<wps:Execute";
    stream.write_all(head.as_bytes()).await.unwrap();
    read(&mut stream).await.exception(408, "NoApplicableCode", "");
    // Cut short: the client has closed its side in the middle.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    still_works(&world).await;
}

#[tokio::test]
async fn too_many_large_bodies_at_once_are_refused() {
    let config = HttpConfig { max_body_bytes: 64 * 1024, ..HttpConfig::default() };
    let world = world(config, never).await;
    let mut open = Vec::new();
    let head =
        format!("POST /wps HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n{}", " ".repeat(30_000));
    for _ in 0..8 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        open.push(stream);
    }
    let end = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = world.post("/wps", "x").await;
        if answer.status == 503 {
            answer.exception(503, "ServerBusy", "");
            break;
        }
        assert!(std::time::Instant::now() < end, "all eight bodies are held, a ninth is taken");
    }
    drop(open);
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while world.post("/wps", "x").await.status != 400 {
        assert!(std::time::Instant::now() < end, "the memory is not given back");
    }
}

#[tokio::test]
async fn ids_are_no_paths() {
    let world = world(HttpConfig::default(), at_once).await;
    std::fs::write(world.results.store().join("secret"), "secret").unwrap();
    world.post("/wps", "").await;
    let run =
        "/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&storeExecuteResponse=true";
    world.get(run).await;
    let id = world.newest();
    for path in [
        "/outputs/../secret/x".to_owned(),
        "/outputs/..%2F..%2Fetc/passwd/x".to_owned(),
        format!("/outputs/{id}/..%2F..%2F/secret"),
        format!("/outputs/{id}/result1/..%2F..%2F..%2Fsecret"),
        format!("/outputs/{id}/result1/%00"),
        format!("/outputs/{id}/result1/%FF"),
        format!("/outputs/{id}/nothing/x"),
        format!("/outputs/{id}/result1"),
        format!("//outputs/{id}/result1/result1.zip"),
    ] {
        let answer = world.get(&path).await;
        answer.exception(404, "NoApplicableCode", "");
    }
    let status = "/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId=";
    for wrong in ["..%2F..%2Fetc%2Fpasswd", "%00", "x", "'%20OR%201=1--"] {
        world.get(&format!("{status}{wrong}")).await.exception(400, "InvalidParameterValue", "executionId");
    }
    world.send("POST", &format!("/outputs/{id}/result1/result1.zip"), &[], b"").await.exception(
        405,
        "OperationNotSupported",
        "POST",
    );
    assert_eq!(
        world.get(&format!("/outputs/{id}/result1/result1.zip")).await.status,
        200,
        "the right way works"
    );
}

#[tokio::test]
async fn nonsense_on_the_socket_harms_nobody() {
    let world = world(HttpConfig::default(), at_once).await;
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"\r\n\r\n\r\n", &[b'A'; 300_000]] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
    }
    still_works(&world).await;
}

#[tokio::test]
async fn whoever_takes_nothing_of_an_answer_is_given_up() {
    let config = HttpConfig { stall_timeout: Duration::from_millis(200), ..HttpConfig::default() };
    let world = world(config, never).await;
    world.get("/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&storeExecuteResponse=true").await;
    let id = world.newest();
    // Sparse: larger than all buffers between the two sides.
    let output = world.keep(id, "result1", "large.bin", b"", "application/zip");
    let file = world.results.store().join(format!("{id}/result1/large.bin"));
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(64 << 20).unwrap();
    world.set(id, super::wps::done(vec![output])).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = format!("GET /outputs/{id}/result1/large.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // Only then is it read: what had been sent comes, and then the end.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut taken = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut taken)).await.unwrap();
    assert!(taken.starts_with(b"HTTP/1.1 200") && taken.len() < 64 << 20, "{} bytes", taken.len());
    still_works(&world).await;
}
