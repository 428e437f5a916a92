//! Downloads: parts, tags, names, large files.

use super::world::world;
use super::wps::{done, never};
use crate::http::HttpConfig;

const RUN: &str = "/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&storeExecuteResponse=true&status=true";

#[tokio::test]
async fn a_file_comes_whole_in_parts_or_not_again() {
    let world = world(HttpConfig::default(), never).await;
    world.get(RUN).await;
    let id = world.newest();
    let output = world.keep(id, "result1", "höhen linien.zip", b"0123456789", "application/zip");
    world.set(id, done(vec![output])).await;
    let path = format!("/outputs/{id}/result1/h%C3%B6hen%20linien.zip");
    let whole = world.get(&path).await;
    assert_eq!((whole.status, whole.body.as_slice()), (200, b"0123456789".as_slice()));
    assert_eq!(whole.header("content-length"), "10");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert!(whole.header("content-security-policy").starts_with("sandbox"));
    assert_eq!(
        whole.header("content-disposition"),
        "attachment; filename=\"h_hen linien.zip\"; filename*=UTF-8''h%C3%B6hen%20linien%2Ezip"
    );
    let tag = whole.header("etag").to_owned();
    let get = async |headers: &[(&str, &str)]| world.send("GET", &path, headers, b"").await;
    let part = get(&[("Range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.text(), part.header("content-range")), (206, "234", "bytes 2-4/10"));
    assert_eq!(get(&[("Range", "bytes=-3")]).await.text(), "789");
    assert_eq!(get(&[("Range", "bytes=2-4"), ("If-Range", &tag)]).await.status, 206);
    assert_eq!(get(&[("Range", "bytes=2-4"), ("If-Range", "\"old\"")]).await.text(), "0123456789");
    let beyond = get(&[("Range", "bytes=10-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */10"));
    let known = get(&[("If-None-Match", &tag)]).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let known = get(&[("If-None-Match", "\"old\""), ("If-None-Match", &format!("\"older\", W/{tag}"))]).await;
    assert_eq!((known.status, known.body.len()), (304, 0), "several lines are one list");
    for (wanted, status) in [(tag.as_str(), 206), ("*", 206), ("\"old\"", 412)] {
        assert_eq!(get(&[("Range", "bytes=2-4"), ("If-Match", wanted)]).await.status, status, "{wanted}");
    }
    // Several ranges may be answered by the whole (RFC 9110 §14.2).
    assert_eq!(get(&[("Range", "bytes=0-1,4-5")]).await.text(), "0123456789");
    for headers in [vec![], vec![("Range", "bytes=2-4")]] {
        let head = world.send("HEAD", &path, &headers, b"").await;
        assert_eq!(
            (head.status, head.header("content-length"), head.body.len()),
            (200, "10", 0),
            "no ranges by HEAD"
        );
    }
    let wrong = world.send("PUT", &path, &[], b"").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "GET, HEAD, OPTIONS"));
    let wrong = world.send("DELETE", "/wps", &[], b"").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "GET, HEAD, POST, OPTIONS"));
}

#[tokio::test]
async fn a_large_result_is_linked_and_streamed() {
    let config = HttpConfig { max_inline_bytes: 1000, ..HttpConfig::default() };
    let world = world(config, never).await;
    let location = world.get(RUN).await.link("statusLocation", &world);
    let id = world.newest();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let large = world.keep(id, "result1", "large.bin", &bytes, "application/zip");
    let small = world.keep(id, "gml", "small.gml", b"<g/>", "text/xml; subtype=gml/3.1.1");
    world.set(id, done(vec![large, small])).await;
    let status = world.get(&location).await;
    let text = status.xml(200);
    assert!(
        text.contains("<wps:ComplexData mimeType=\"text/xml; subtype=gml/3.1.1\"><g/></wps:ComplexData>"),
        "{text}"
    );
    assert_eq!(world.get(&status.link("href", &world)).await.body, bytes);
}

#[tokio::test]
async fn a_result_that_has_gone_is_not_found_and_its_status_still_told() {
    let world = world(HttpConfig::default(), never).await;
    let location = world.get(RUN).await.link("statusLocation", &world);
    let id = world.newest();
    let output = world.keep(id, "result1", "a.zip", b"x", "application/zip");
    world.set(id, done(vec![output])).await;
    std::fs::remove_dir_all(world.results.store().join(id.to_string())).unwrap();
    let status = world.get(&location).await;
    assert!(status.xml(200).contains("<wps:ProcessSucceeded>"));
    world.get(&status.link("href", &world)).await.exception(404, "NoApplicableCode", "");
}
