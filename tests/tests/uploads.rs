//! Results that go to an upload server: the same bytes arrive whatever it speaks, nothing is half there, what fails says
//! why, and a client gets the address.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::fs;
use std::path::Path;

use e2e::client::Execute;
use e2e::skip;
use e2e::upload_server::{Protocol, UploadServer};
use sha2::{Digest, Sha256};
use wps_remote_agent::config::AgentConfig;
use wps_remote_agent::outputs::Parcel;
use wps_remote_agent::upload::{UploadError, send};
use wps_remote_protocol::ini::settings::Surroundings;

const ALL: [Protocol; 5] = [Protocol::Ftp, Protocol::Ftps, Protocol::Sftp, Protocol::SftpKey, Protocol::S3];

fn started(test: &str, protocol: Protocol) -> Option<UploadServer> {
    match UploadServer::start(protocol) {
        Ok(server) => Some(server),
        Err(why) => {
            skip(&format!("{test} ({protocol:?})"), &why);
            None
        }
    }
}

/// The uploader that an agent with these lines would have.
fn uploader(lines: &str) -> wps_remote_agent::config::Uploader {
    let text = format!(
        "[DEFAULT]\naddress = 127.0.0.1\nport = 5222\ndomain = d\nuser = u\npassword = p\nmucService = c.d\nmucServicePassword = r\nresource_file_dir = /tmp\n{lines}"
    );
    let around = Surroundings {
        env: &|_| None,
        file: &|path| fs::read_to_string(path).map_err(|error| error.to_string()),
        credential: &|_| None,
    };
    AgentConfig::parse(Path::new("/etc/remote.config"), text.as_bytes(), &around, "host")
        .unwrap()
        .uploader
        .unwrap()
}

fn parcel(server: &UploadServer, file: &Path, path: &str) -> Parcel {
    let path = format!("{}/{path}", server.root());
    let path = if server.root().is_empty() { path.trim_start_matches('/').to_owned() } else { path };
    Parcel { file: file.to_owned(), path: path.split('/').map(str::to_owned).collect() }
}

fn server_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Ftp => "FTP",
        Protocol::Ftps => "FTPS",
        Protocol::Sftp => "SFTP by password",
        Protocol::SftpKey => "SFTP by key",
        Protocol::S3 => "S3",
    }
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_same_bytes_arrive_whatever_the_server_speaks() {
    let scratch = tempfile::tempdir().unwrap();
    // Empty, small with line ends that must stay as they are, and more than one part of an object store.
    let large: Vec<u8> = (0..17_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let contents: [(&str, &[u8]); 3] =
        [("empty.bin", b""), ("lines and blanks ü.txt", b"a\r\nb\nc\r\xff\0"), ("large.tif", &large)];
    for (name, bytes) in contents {
        fs::write(scratch.path().join(name), bytes).unwrap();
    }
    for protocol in ALL {
        let Some(server) = started("uploads", protocol) else { continue };
        let uploader = uploader(&server.config());
        let place =
            |name: &str| parcel(&server, &scratch.path().join(name), &format!("deep/er/e1/out/{name}"));
        let parcels: Vec<Parcel> = contents.iter().map(|(name, _)| place(name)).collect();
        // Twice: a repetition after a crash of the agent finds everything there already.
        for _ in 0..2 {
            let placed = send(&uploader, &parcels)
                .unwrap_or_else(|error| panic!("{protocol:?}: {error}\n{}", server.log()));
            for ((name, bytes), placed) in contents.iter().zip(&placed) {
                let there = server.file(&format!("deep/er/e1/out/{name}"));
                assert!(fs::read(&there).unwrap() == *bytes, "{protocol:?} {name}");
                assert_eq!((placed.bytes, &placed.sha256), (bytes.len() as u64, &sum(bytes)), "{protocol:?}");
                let encoded = name.replace(' ', "%20").replace('ü', "%C3%BC");
                assert!(placed.href.ends_with(&format!("/deep/er/e1/out/{encoded}")), "{}", placed.href);
            }
        }
        if protocol != Protocol::S3 {
            let names: Vec<_> = fs::read_dir(server.file("deep/er/e1/out")).unwrap().collect();
            assert_eq!(names.len(), contents.len(), "{protocol:?}: nothing else is left");
        }
    }
}

#[test]
fn what_fails_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a.txt");
    fs::write(&file, "a").unwrap();
    for protocol in ALL {
        let Some(mut server) = started("failing uploads", protocol) else { continue };
        let parcels = [parcel(&server, &file, "e1/out/a.txt")];
        if protocol != Protocol::SftpKey {
            let wrong = match protocol {
                Protocol::S3 => server.config().replace("uploader_username = ", "uploader_username = not"),
                _ => {
                    let lines = server.config();
                    let kept: Vec<&str> = lines.lines().filter(|line| !line.contains("password")).collect();
                    format!("{}\nuploader_password = pass:word\n", kept.join("\n"))
                }
            };
            let error = send(&uploader(&wrong), &parcels).expect_err(server_name(protocol));
            assert!(matches!(error, UploadError::Login { .. }), "{protocol:?}: {error}");
            assert!(!error.to_string().contains("pass:word"), "{error}");
        }
        match protocol {
            Protocol::Ftps => {
                let lines = server.config();
                let untrusted: Vec<&str> = lines.lines().filter(|line| !line.contains("ca_file")).collect();
                let error = send(&uploader(&untrusted.join("\n")), &parcels).unwrap_err();
                assert!(matches!(error, UploadError::Trust { .. }), "{error}");
                let insecure = format!("{}\nuploader_insecure = true\n", untrusted.join("\n"));
                send(&uploader(&insecure), &parcels).unwrap();
            }
            Protocol::Sftp | Protocol::SftpKey => {
                server.forget_host();
                let error = send(&uploader(&server.config()), &parcels).unwrap_err();
                assert!(matches!(error, UploadError::Trust { .. }), "{error}");
                assert!(error.to_string().contains("SHA256:"), "{error}");
            }
            Protocol::Ftp | Protocol::S3 => {}
        }
        let missing = [parcel(&server, &scratch.path().join("none"), "e1/out/none")];
        if matches!(protocol, Protocol::Ftp | Protocol::Ftps | Protocol::S3) {
            let error = send(&uploader(&server.config()), &missing).unwrap_err();
            assert!(matches!(error, UploadError::Local { .. }), "{error}");
        }
        server.kill();
        let error = send(&uploader(&server.config()), &parcels).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:"), "{protocol:?}: {error}");
    }
}

#[test]
fn a_server_that_comes_back_in_time_costs_nothing_but_a_pause() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a.txt");
    fs::write(&file, "a").unwrap();
    let Some(mut server) = started("an upload that is tried again", Protocol::Sftp) else { return };
    let (uploader, parcels) = (uploader(&server.config()), [parcel(&server, &file, "e1/out/a.txt")]);
    server.kill();
    let sending = std::thread::spawn(move || send(&uploader, &parcels));
    server.restart().unwrap();
    sending.join().unwrap().unwrap();
    assert_eq!(fs::read(server.file("e1/out/a.txt")).unwrap(), b"a");
}

#[test]
fn a_client_gets_the_address_of_what_was_uploaded() {
    let Some(server) = started("a job whose result is uploaded", Protocol::Sftp) else { return };
    e2e::run("uploads", |site| {
        let orchestrator = site.orchestrator().start();
        let descriptor = "[Description]\nservice = Drawing\nnamespace = demo\ntitle = Drawing\ndescription = Draws\nexecutable = draw.sh\nversion = 1\n\
             [Options]\nargformat = --key=value\nmax_running_time_seconds = 60\n\
             [Output]\nresult_map = {\"type\": \"image/png\", \"file\": \"map.png\", \"upload\": true, \"upload_root\": \"maps\", \"sidecars\": \"stem\"}\n\
             result_text = {\"type\": \"string\", \"file\": \"text.txt\", \"upload\": true}\n";
        let script = "#!/bin/sh\nprintf picture > map.png\nprintf world > map.pgw\nprintf words > text.txt\n";
        let config = format!("{}uploader_public_url = https://files.example.org/results/\n", server.config());
        let _agent =
            site.agent("a").file("drawing.ini", descriptor).file("draw.sh", script).config(&config).start();
        orchestrator.wait_for(&["demo:Drawing"]);
        let mut wps = orchestrator.wps();
        let answer = wps.execute(&Execute::new("demo:Drawing")).text();
        let address = "https://files.example.org/results/maps/";
        let begin = answer.find(address).unwrap_or_else(|| panic!("{answer}"));
        let rest = &answer[begin + address.len()..];
        let path = rest.split('"').next().unwrap();
        assert!(path.ends_with("/result_map/map.png"), "{path}");
        assert!(answer.contains("words"), "{answer}");
        let map = server.file(&format!("maps/{path}"));
        assert_eq!(fs::read(&map).unwrap(), b"picture");
        assert_eq!(fs::read(map.with_extension("pgw")).unwrap(), b"world");
        let log = fs::read_to_string(site.folder().join("a.log")).unwrap();
        assert!(!log.contains("pass:word"), "{log}");
    });
}
