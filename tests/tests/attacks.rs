//! The edge under attack, each with a figure: clients that drip, thousands that do nothing, requests that are too large in every
//! way, paths that climb, references that lead inside, names that would end a header, guessing of passwords and of users, too
//! many requests; and no secret in any log. Meanwhile an honest client is served.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::client::{Execute, Status, exception};
use e2e::http::{Answer, Http, base64, read_answer};
use e2e::orchestrator::Orchestrator;
use e2e::{tell, wait_until};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Longest answer to an honest client on a very busy machine.
const HONEST: Duration = Duration::from_secs(5);

fn connect(orchestrator: &Orchestrator<'_>) -> TcpStream {
    let stream = TcpStream::connect_timeout(&orchestrator.address(), Duration::from_secs(10)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends these bytes on a connection of their own and gives the answer, if there is one.
fn send(orchestrator: &Orchestrator<'_>, bytes: &[u8]) -> Option<Answer> {
    let mut stream = connect(orchestrator);
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(bytes);
    read_answer(&mut BufReader::new(&stream)).ok().map(|(answer, _)| answer)
}

/// How long an honest client waits for the capabilities.
fn honest(orchestrator: &Orchestrator<'_>) -> Duration {
    let begin = Instant::now();
    let answer = Http::new(orchestrator.address()).get("/wps?service=WPS&request=GetCapabilities").unwrap();
    assert_eq!(answer.status, 200);
    begin.elapsed()
}

/// Whether the server has closed a connection; reads what it said before.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn clients_that_drip_are_given_up_while_others_are_served() {
    e2e::run("slowloris", |site| {
        let orchestrator =
            site.orchestrator().config("[http]\nheader_timeout_s = 2\nrequest_timeout_s = 3").start();
        let heads = 400;
        let mut slow: Vec<TcpStream> = (0..heads)
            .map(|_| {
                let mut stream = connect(&orchestrator);
                stream.write_all(b"GET /wps?service=WPS HTTP/1.1\r\nHost: x\r\n").unwrap();
                stream
            })
            .collect();
        let bodies = 50;
        slow.extend((0..bodies).map(|_| {
            let mut stream = connect(&orchestrator);
            stream
                .write_all(
                    b"POST /wps HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 100000\r\n\r\n<",
                )
                .unwrap();
            stream
        }));
        let begin = Instant::now();
        let mut worst = Duration::ZERO;
        let ended = wait_until(Duration::from_secs(60), || {
            slow.retain_mut(|stream| {
                // One more byte of a header, or of the body, now and then: never enough, never silent.
                !is_closed(stream) && stream.write_all(b"x").is_ok()
            });
            worst = worst.max(honest(&orchestrator));
            std::thread::sleep(Duration::from_millis(100));
            slow.is_empty().then(|| begin.elapsed())
        });
        let ended = ended.unwrap_or_else(|| panic!("{} of them are still served", slow.len()));
        tell(&format!(
            "slowloris: {heads} heads and {bodies} bodies that drip are gone after {ended:.1?} (limits 2 s and 3 s); an honest client \
             waited {worst:.0?} at most"
        ));
        assert!(worst < HONEST, "{worst:?}");
    });
}

/// Opens many connections that say nothing, as many as the system allows of those.
fn open(orchestrator: &Orchestrator<'_>, wanted: usize) -> Vec<TcpStream> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let most = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    // Some for the test itself, and the orchestrator has the same limit.
    let count = wanted.min(most.saturating_sub(1000));
    if count < wanted {
        e2e::skip(
            "10,000 idle connections",
            &format!("only {most} files may be open here; {count} are tried"),
        );
    }
    (0..count).map(|_| connect(orchestrator)).collect()
}

#[test]
fn ten_thousand_idle_connections_are_held_or_give_way() {
    e2e::run("idle", |site| {
        let config = "[http]\nmax_connections = 12000\nheader_timeout_s = 300";
        let orchestrator = site.orchestrator().named("roomy").config(config).start();
        honest(&orchestrator);
        let before = orchestrator.program().resident();
        let begin = Instant::now();
        let idle = open(&orchestrator, 10_000);
        let open_after = begin.elapsed();
        let held = wait_until(Duration::from_secs(30), || {
            orchestrator.metric("wps_http_connections").filter(|open| *open >= idle.len() as f64)
        });
        assert!(held.is_some(), "{:?} of {}", orchestrator.metric("wps_http_connections"), idle.len());
        let worst = (0..20).map(|_| honest(&orchestrator)).max().unwrap_or_default();
        let grown = orchestrator.program().resident().saturating_sub(before);
        tell(&format!(
            "{} idle connections, all held: open after {open_after:.1?}, {:.1} kB each, an honest client waits {worst:.0?} at most",
            idle.len(),
            grown as f64 / 1000.0 / idle.len() as f64
        ));
        assert!(worst < HONEST, "{worst:?}");
        assert!(grown < 400 << 20, "{} MiB", grown >> 20);
        drop(idle);
        let released = wait_until(Duration::from_secs(30), || {
            orchestrator.metric("wps_http_connections").filter(|open| *open < 100.0)
        });
        assert!(released.is_some(), "{:?} are still counted", orchestrator.metric("wps_http_connections"));
        orchestrator.stop();
    });
    e2e::run("idle-bounded", |site| {
        let config = "[http]\nmax_connections = 1000\nheader_timeout_s = 300";
        let orchestrator = site.orchestrator().config(config).start();
        let idle = open(&orchestrator, 10_000);
        let worst = (0..20).map(|_| honest(&orchestrator)).max().unwrap_or_default();
        let open = orchestrator.metric("wps_http_connections").unwrap();
        let gave_way = orchestrator.metric("wps_http_connections_given_up_total").unwrap();
        tell(&format!(
            "{} idle connections at a bound of 1000: {open} are open, {gave_way} gave way, an honest client waits {worst:.0?} at most",
            idle.len()
        ));
        assert!(open <= 1000.0 && gave_way >= (idle.len() - 1000) as f64, "{open} {gave_way}");
        assert!(worst < HONEST, "{worst:?}");
    });
}

#[test]
fn one_address_has_its_share_of_connections_and_requests() {
    e2e::run("share", |site| {
        site.expect_warning("max_connections_per_address is reached");
        let config = "[http]\nmax_connections_per_address = 20\nrequests_per_minute = 60";
        let orchestrator = site.orchestrator().config(config).start();
        let from = |address: [u8; 4]| client_from(&orchestrator, address);
        let held: Vec<TcpStream> = (0..20).map(|_| from([127, 0, 0, 2])).collect();
        let mut more = from([127, 0, 0, 2]);
        let _ = more.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        let (refused, _) = read_answer(&mut BufReader::new(&more)).unwrap();
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("5")));
        let ask = |stream: &mut TcpStream| {
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            read_answer(&mut BufReader::new(&*stream)).unwrap().0
        };
        let mut other = from([127, 0, 0, 3]);
        assert_eq!(ask(&mut other).status, 200, "another address has its own share");
        drop(held);
        let answers: Vec<u16> = (0..100).map(|_| ask(&mut other).status).collect();
        let served = answers.iter().filter(|status| **status == 200).count();
        let last = ask(&mut other);
        assert_eq!(last.status, 429, "{answers:?}");
        assert!(
            last.header("retry-after").is_some() && last.text().contains("requests_per_minute"),
            "{}",
            last.text()
        );
        assert_eq!(ask(&mut from([127, 0, 0, 4])).status, 200);
        tell(&format!(
            "60 requests a minute from one address: {served} of 100 served at once, the rest 429 with Retry-After"
        ));
        assert!((55..=75).contains(&served), "{served}");
    });
}

/// A connection that comes from this address of the loopback network.
fn client_from(orchestrator: &Orchestrator<'_>, address: [u8; 4]) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::from(address), 0))).unwrap();
    connect(&socket, &orchestrator.address()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn oversized_everything_is_refused_and_costs_little() {
    e2e::run("oversized", |site| {
        let orchestrator = site.orchestrator().config("[http]\nmax_body_mb = 1").start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        honest(&orchestrator);
        let before = orchestrator.program().resident();
        let long = "x".repeat(1 << 20);
        let many = |n: usize, one: &dyn Fn(usize) -> String| (0..n).map(one).collect::<String>();
        let post = |body: &str| {
            format!(
                "POST /wps HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let execute = |inputs: &str| {
            Execute::new("demo:Echo")
                .to_xml()
                .replace("<wps:DataInputs>", &format!("<wps:DataInputs>{inputs}"))
        };
        let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let attributes = many(20_000, &|n| format!(" a{n}=\"1\""));
        let inputs = many(5_000, &|n| {
            format!(
                "<wps:Input><ows:Identifier>i{n}</ows:Identifier><wps:Data><wps:LiteralData>1</wps:LiteralData></wps:Data></wps:Input>"
            )
        });
        for (what, request) in [
            ("a target of 1 MB", get(&format!("/{long}"), "")),
            ("a query of 1 MB", get(&format!("/wps?service={long}"), "")),
            ("10,000 query parameters", get(&format!("/wps?{}", many(10_000, &|n| format!("a{n}=b&"))), "")),
            ("a header of 1 MB", get("/wps", &format!("X-Long: {long}\r\n"))),
            ("5,000 headers", get("/wps", &many(5_000, &|n| format!("X-{n}: y\r\n")))),
            ("a login of 100 kB", get("/wps?service=WPS&request=GetCapabilities", &format!("Authorization: Bearer {}\r\n", &long[..100_000]))),
            ("a body of 2 MB", post(&format!("{long}{long}"))),
            ("a length of 2^63", "POST /wps HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\nx".to_owned()),
            ("a length beyond numbers", "POST /wps HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\nx".to_owned()),
            ("two lengths", "POST /wps HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_owned()),
            ("length and chunks", "POST /wps HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
            ("a chunk beyond numbers", "POST /wps HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx".to_owned()),
            ("100,000 levels", post(&format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000)))),
            ("20,000 attributes", post(&format!("<wps:Execute{attributes}/>"))),
            ("5,000 inputs", post(&execute(&inputs))),
            ("an identifier of 900 kB", post(&Execute::new(&format!("demo:{}", &long[..900_000])).to_xml())),
        ] {
            let begin = Instant::now();
            let answer = send(&orchestrator, request.as_bytes());
            let took = begin.elapsed();
            let status = answer.as_ref().map(|answer| answer.status);
            tell(&format!("{what}: {} after {took:.0?}", status.map_or("closed".to_owned(), |status| status.to_string())));
            // A login that is too long counts as none, where none is needed.
            let fine = status.is_none_or(|status| (400..500).contains(&status)) || what.contains("login");
            assert!(fine, "{what}: {status:?}");
            assert!(took < Duration::from_secs(20), "{what}: {took:?}");
        }
        let grown = orchestrator.program().resident().saturating_sub(before);
        tell(&format!(
            "all of it together: {} MiB more than before, an honest client waits {:.0?}",
            grown >> 20,
            honest(&orchestrator)
        ));
        assert!(grown < 100 << 20, "{} MiB more", grown >> 20);
    });
}

#[test]
fn no_path_climbs_out_and_no_name_ends_its_header() {
    e2e::run("climbing", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        let mut wps = orchestrator.wps();
        let location =
            wps.submit(&Execute::new("demo:Echo").literal("text", "root: x").stored_reference("result_file"));
        assert_eq!(wps.wait(&location), Status::Succeeded);
        let document = wps.fetch(&location).text();
        let href = document.split('"').find(|part| part.contains("/outputs/")).unwrap().to_owned();
        let good = wps.target(&href);
        assert_eq!(wps.http.get(&good).unwrap().status, 200);
        let parts: Vec<&str> = good.split('/').collect();
        let (job, output, file) = (parts[2], parts[3], parts[4]);
        let up = [
            "..",
            "%2e%2e",
            "%252e%252e",
            "..%2f..%2f..%2fetc%2fpasswd",
            "..%5c..%5cetc%5cpasswd",
            "%00",
            ".",
            "%2e",
            "~root",
        ];
        let mut tried = 0;
        for step in up {
            for target in [
                format!("/outputs/{job}/{output}/{step}"),
                format!("/outputs/{job}/{step}/{file}"),
                format!("/outputs/{step}/{output}/{file}"),
                format!("/outputs/{job}/{output}/{file}/{step}/{step}/{step}/etc/passwd"),
                format!("/outputs/{step}/{step}/{step}/{step}/etc/passwd"),
                format!("/inputs/{job}/{step}"),
                format!("/{step}/{step}/{step}/etc/passwd"),
                format!("/jobs/{step}"),
            ] {
                tried += 1;
                let answer = send(
                    &orchestrator,
                    format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
                )
                .unwrap();
                assert!((400..500).contains(&answer.status), "{target}: {}", answer.status);
                assert!(!answer.text().contains("root:"), "{target}");
            }
        }
        // What clients say about themselves comes back in links and names; none of it may begin a header or a tag.
        let mut split = 0;
        for value in ["x%0d%0aX-Evil:%201", "x%0aX-Evil:1", "x\u{85}X-Evil:1", "\"><script>", "x\tX-Evil:1"] {
            for target in [
                format!("/wps?service=WPS&version=1.0.0&request=Execute&identifier={value}"),
                format!(
                    "/wps?service=WPS&version=1.0.0&request=Execute&identifier=demo:Echo&DataInputs=text=a&RawDataOutput={value}"
                ),
                format!(
                    "/wps?service=WPS&version=1.0.0&request=Execute&identifier=demo:Echo&DataInputs=text=a&RawDataOutput=result_text@mimeType={value}"
                ),
                format!("/outputs/{job}/{output}/{value}"),
            ] {
                for (host, header) in [
                    ("x", ""),
                    ("x\"><y", ""),
                    ("x", "Origin: https://a\"><script>\r\n"),
                    ("x", "Access-Control-Request-Headers: a\"b\r\n"),
                ] {
                    split += 1;
                    let request = format!(
                        "GET {} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n",
                        target.replace(['"', '<', '>', '\t', '\u{85}'], "%22")
                    );
                    let answer = send(&orchestrator, request.as_bytes()).unwrap();
                    assert_eq!(answer.header("x-evil"), None, "{target}");
                    assert!(!answer.text().contains("<script>"), "{target}: {}", answer.text());
                }
            }
        }
        tell(&format!("{tried} paths that climb and {split} values that would end a header: none did"));
    });
}

/// A server that answers each request with these bytes and counts them.
fn stand_in(answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, hits) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = hits.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, hits)
}

#[test]
fn no_reference_leads_inside() {
    e2e::run("ssrf", |site| {
        let (inside, hits) =
            stand_in("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret".to_owned());
        let redirect = |to: String| {
            stand_in(format!(
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ))
            .0
        };
        let port = inside.port();
        let doors: Vec<SocketAddr> = [
            format!("http://{inside}/"),
            format!("http://localhost:{port}/"),
            format!("http://2130706433:{port}/"),
            "file:///etc/passwd".to_owned(),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
        ]
        .map(redirect)
        .to_vec();
        // Any public place, and of the private ones just the doors.
        let mut allow = vec!["*".to_owned()];
        allow.extend(doors.iter().map(|door| format!("http://{door}/")));
        let orchestrator = site
            .orchestrator()
            .config(&format!("[references]\nallow = {}\ntimeout_s = 5", allow.join(", ")))
            .start();
        let _agent = site
            .agent("a")
            .file("take.ini", "[Description]\nservice = Take\nnamespace = test\nexecutable = take.sh\n\n[Input]\ndata = {\"type\": \"text/plain\"}\n\n[Output]\nresult = {\"type\": \"string\", \"file\": \"r\"}\n")
            .file("take.sh", "#!/bin/sh\ncat \"${1#--data=}\" > r\n")
            .start();
        orchestrator.wait_for(&["test:Take"]);
        let mut wps = orchestrator.wps();
        let mut addresses: Vec<String> = doors.iter().map(|door| format!("http://{door}/")).collect();
        // Names and numbers that stand for this host: what counts is what the resolver answers.
        for host in [
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "ip6-localhost",
        ] {
            addresses.push(format!("http://{host}:{port}/"));
        }
        addresses.extend(
            [
                "file:///etc/passwd",
                "http://169.254.169.254/",
                "http://[fd00::1]/",
                "gopher://127.0.0.1/",
                "http://10.0.0.1/",
                "http://user@127.0.0.1/",
            ]
            .map(str::to_owned),
        );
        let begin = Instant::now();
        for address in &addresses {
            let reference = format!(
                "<wps:Input><ows:Identifier>data</ows:Identifier><wps:Reference xlink:href=\"{address}\" xmlns:xlink=\"http://www.w3.org/1999/xlink\"/></wps:Input>"
            );
            let body = Execute::new("test:Take").literal("data", "PLACE").raw("result").to_xml();
            let from = body.find("<wps:Input>").unwrap();
            let to = body.find("</wps:Input>").unwrap() + "</wps:Input>".len();
            let answer = wps.post(&format!("{}{reference}{}", &body[..from], &body[to..]));
            let fault = exception(&answer);
            assert!(
                !answer.text().contains("secret") && !answer.text().contains("root:"),
                "{address}: {fault:?}"
            );
        }
        let asked = hits.load(Ordering::SeqCst);
        tell(&format!(
            "{} references that lead inside, 5 of them by redirects: {asked} arrived, {:.1?} together",
            addresses.len(),
            begin.elapsed()
        ));
        assert_eq!(asked, 0);
    });
}

/// Sends a login from an address and gives status and time.
fn login(orchestrator: &Orchestrator<'_>, from: [u8; 4], user: &str, password: &str) -> (u16, Duration) {
    let encoded = base64(format!("{user}:{password}").as_bytes());
    let mut stream = client_from(orchestrator, from);
    let begin = Instant::now();
    stream
        .write_all(format!("GET /wps?service=WPS&request=GetCapabilities HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {encoded}\r\n\r\n").as_bytes())
        .unwrap();
    let (answer, _) = read_answer(&mut BufReader::new(&stream)).unwrap();
    (answer.status, begin.elapsed())
}

#[test]
fn passwords_take_the_same_time_whoever_they_are_for_and_guessing_is_slowed_down() {
    e2e::run("timing", |site| {
        site.expect_warning("refused");
        let orchestrator = site.orchestrator().config("[access]\nanonymous = none").start();
        assert!(orchestrator.command(&["users", "add", "ann", "--password-stdin"], "correct horse\n").0);
        assert_eq!(login(&orchestrator, [127, 0, 0, 9], "ann", "correct horse").0, 200);
        // Some from each address, so that the brake does not act yet; in turns, so that what the machine does besides meets all.
        let mut times: [Vec<Duration>; 3] = Default::default();
        for round in 0..24u8 {
            let from = [127, 0, 1, round / 2 + 1];
            let long = "w".repeat(if round % 2 == 0 { 13 } else { 900 });
            for (kind, (user, password)) in
                [("ann", "correct hors!"), ("bob", "correct hors!"), ("ann", &long)].into_iter().enumerate()
            {
                let (status, took) = login(&orchestrator, from, user, password);
                assert_eq!(status, 401);
                times[kind].push(took);
            }
        }
        let median = |list: &mut Vec<Duration>| {
            list.sort();
            list[list.len() / 2]
        };
        let [known, unknown, long] = times.each_mut().map(median);
        let ratio = known.as_secs_f64() / unknown.as_secs_f64();
        tell(&format!(
            "password checks, median of 24: user that exists {known:.1?}, that does not {unknown:.1?} (ratio {ratio:.2}), another password {long:.1?}"
        ));
        // A check without the work of the hash is a hundred times quicker.
        assert!((0.4..2.5).contains(&ratio), "{ratio}");

        let guesser = [127, 0, 2, 1];
        let begin = Instant::now();
        let mut looked_at = 0;
        while begin.elapsed() < Duration::from_secs(6) {
            match login(&orchestrator, guesser, "ann", "guess").0 {
                401 => looked_at += 1,
                429 => std::thread::sleep(Duration::from_millis(20)),
                other => panic!("{other}"),
            }
        }
        tell(&format!("guessing from one address: {looked_at} passwords looked at in 6 s"));
        assert!((5..=15).contains(&looked_at), "{looked_at}");
        assert_eq!(login(&orchestrator, [127, 0, 0, 9], "ann", "correct horse").0, 200, "others go on");
    });
}
