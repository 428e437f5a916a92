//! What the conformance suites ets-wps20 and ets-wps10 ask of an echo process, asked by ourselves, over an agent and a real
//! program: `conformance/run` needs Java and the suites, this does not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::net::SocketAddr;
use std::time::Duration;

use e2e::http::{Answer, Http};
use e2e::xml::Node;

/// As the suites know it.
const PROCESS: &str = "org.n52.javaps.test.EchoProcess";
const NS: &str = "http://www.opengis.net/wps/2.0";
const CAR: &str = "https://example.org/examples/vehicle.txt";

/// A site with the echo process under the suites' name.
fn with_echo(name: &str, test: impl FnOnce(SocketAddr)) {
    e2e::run(name, |site| {
        let vehicle = site.folder().join("vehicle.txt");
        std::fs::write(&vehicle, "car\n").unwrap();
        let config = format!(
            "[http]\nsettle_ms = 60000\n[references]\nrewrite = {CAR} => {}\n[aliases]\n{PROCESS} = conformance:Echo",
            vehicle.display()
        );
        let orchestrator = site.orchestrator().config(&config).start();
        let _agent = site
            .agent("a")
            .file("echo.sh", include_str!("../conformance/service/echo.sh"))
            .file("echo.ini", include_str!("../conformance/service/echo.ini"))
            .start();
        orchestrator.wait_for(&[PROCESS, "conformance:Echo"]);
        test(orchestrator.address());
    });
}

fn get(address: SocketAddr, query: &str) -> Answer {
    Http::new(address).get(&format!("/wps?{query}")).unwrap()
}

fn post(address: SocketAddr, document: &str) -> Answer {
    Http::new(address).post("/wps", "application/xml", document.as_bytes()).unwrap()
}

/// The document of an answer of WPS 2.0.2 that must be good.
fn good(answer: &Answer, root: &str) -> Node {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let node = Node::parse(&answer.body).unwrap();
    assert_eq!((node.name.as_str(), node.namespace.as_str()), (root, NS), "{}", answer.text());
    node
}

/// An Execute with one input and the output of the same kind, with what the suite's templates have that nobody needs: an
/// attribute of a mistyped namespace, and a schema location that leads nowhere.
fn execute(mode: &str, response: &str, kind: &str, input: &str, output: &str) -> String {
    format!(
        "<wps:Execute xmlns:wps=\"{NS}\" xmlns:ows=\"http://www.opengis.net/ows/2.0\" \
         xmlns:xlink=\"http://www.w3.org/1999/xlink\" xmlns:odd=\"http://www.aw3.org/2001/XMLSchema-instance\" \
         odd:schemaLocation=\"{NS} ../wps.xsd\" service=\"WPS\" version=\"2.0.0\" mode=\"{mode}\" response=\"{response}\">\
         <ows:Identifier>{PROCESS}</ows:Identifier><wps:Input id=\"{kind}Input\">{input}</wps:Input>\
         <wps:Output id=\"{kind}Output\" {output}/></wps:Execute>"
    )
}

fn hello(mode: &str, response: &str) -> String {
    let value = "<wps:Data><wps:LiteralValue>hello_literal</wps:LiteralValue></wps:Data>";
    execute(mode, response, "literal", value, "transmission=\"value\"")
}

fn job_of(answer: &Answer) -> String {
    let info = good(answer, "StatusInfo");
    assert_eq!(info.text_of("Status"), Some("Accepted"));
    info.text_of("JobID").unwrap().to_owned()
}

#[test]
fn wps_2_basic_and_synchronous() {
    with_echo("suite-2-sync", |address| {
        let described =
            get(address, &format!("Service=WPS&Version=2.0.0&Request=DescribeProcess&Identifier={PROCESS}"));
        let offering = good(&described, "ProcessOfferings");
        assert_eq!(offering.text_of("Identifier"), Some(PROCESS));
        for kind in ["LiteralData", "ComplexData", "BoundingBoxData"] {
            assert_eq!(offering.all(kind).len(), 2, "{kind} goes in and out");
        }
        let all = good(
            &get(address, "service=WPS&version=2.0.0&request=DescribeProcess&identifier=ALL"),
            "ProcessOfferings",
        );
        let names: Vec<_> =
            all.all("Process").iter().filter_map(|p| p.text_of("Identifier").map(str::to_owned)).collect();
        assert_eq!(names, ["conformance:Echo", PROCESS]);

        let raw = post(address, &hello("sync", "raw"));
        assert!(raw.status == 200 && raw.text().contains("hello_literal"), "{}", raw.text());
        let element = "<wps:Data><testElement>hello_complex</testElement></wps:Data>";
        let raw = post(address, &execute("sync", "raw", "complex", element, "transmission=\"value\""));
        let node = Node::parse(&raw.body).unwrap();
        assert_eq!((node.name.as_str(), node.text.as_str()), ("testElement", "hello_complex"));

        let by_value = good(&post(address, &hello("sync", "document")), "Result");
        assert_eq!(by_value.text_of("LiteralValue"), Some("hello_literal"));
        let reference = format!("<wps:Reference mimeType=\"text/plain\" xlink:href=\"{CAR}\"/>");
        let by_reference = execute("sync", "document", "literal", &reference, "transmission=\"value\"");
        assert_eq!(good(&post(address, &by_reference), "Result").text_of("LiteralValue"), Some("car"));
        let linked = execute("sync", "document", "literal", &reference, "transmission=\"reference\"");
        let linked = good(&post(address, &linked), "Result");
        let link = linked.find("Reference").unwrap().attribute("href").unwrap();
        let path = link.strip_prefix(&format!("http://{address}")).unwrap();
        assert_eq!(Http::new(address).get(path).unwrap().text().trim(), "car");

        let area = "<wps:Data><ows:BoundingBox crs=\"urn:ogc:def:crs:EPSG::4326\"><ows:LowerCorner>-7 40.5\
                    </ows:LowerCorner><ows:UpperCorner>2 50</ows:UpperCorner></ows:BoundingBox></wps:Data>";
        let area = execute("sync", "document", "boundingbox", area, "");
        let area = good(&post(address, &area), "Result");
        assert_eq!(area.find("BoundingBox").unwrap().attribute("crs"), Some("EPSG:4326"));
        assert_eq!(area.text_of("LowerCorner"), Some("-7 40.5"));
    });
}

#[test]
fn wps_2_asynchronous() {
    with_echo("suite-2-async", |address| {
        let (first, second) = (
            job_of(&post(address, &hello("async", "document"))),
            job_of(&post(address, &hello("async", "raw"))),
        );
        assert_ne!(first, second);
        // No client of the suite waits: the jobs have ended when their acceptance is told.
        for key in ["JOBID", "jobid"] {
            let status = get(address, &format!("SERVICE=WPS&VERSION=2.0.0&REQUEST=GetStatus&{key}={first}"));
            assert_eq!(good(&status, "StatusInfo").text_of("Status"), Some("Succeeded"));
        }
        let ask = |operation: &str, job: &str| {
            format!(
                "<wps:{operation} xmlns:wps=\"{NS}\" service=\"WPS\" version=\"2.0.0\"><wps:JobID>{job}</wps:JobID></wps:{operation}>"
            )
        };
        good(&post(address, &ask("GetStatus", &first)), "StatusInfo");
        let document = good(&post(address, &ask("GetResult", &first)), "Result");
        assert_eq!(document.text_of("LiteralValue"), Some("hello_literal"));
        let raw = good(&post(address, &ask("GetResult", &second)), "LiteralValue");
        assert_eq!(raw.text, "hello_literal");
        let raw = get(address, &format!("service=WPS&version=2.0.0&request=GetResult&jobid={second}"));
        assert_eq!(good(&raw, "LiteralValue").text, "hello_literal");
    });
}

#[test]
fn wps_1_execute() {
    with_echo("suite-1", |address| {
        let succeeded = |answer: &Answer| {
            assert_eq!(answer.status, 200, "{}", answer.text());
            let response = Node::parse(&answer.body).unwrap();
            assert_eq!(response.find("Process").unwrap().text_of("Identifier"), Some(PROCESS));
            assert!(response.find("ProcessSucceeded").is_some(), "{}", answer.text());
            assert_eq!(response.text_of("LiteralData"), Some("hello"));
            response
        };
        let query = format!(
            "service=WPS&version=1.0.0&request=Execute&identifier={PROCESS}&DataInputs=literalInput=hello&ResponseDocument=literalOutput"
        );
        succeeded(&get(address, &query));
        succeeded(&get(address, &format!("{query}&Language=en-US")));
        let raw = post(address, include_str!("../conformance/requests/raw.xml"));
        assert_eq!((raw.status, raw.text().as_str()), (200, "hello"));
        succeeded(&post(address, include_str!("../conformance/requests/document.xml")));
        let stored = succeeded(&post(address, include_str!("../conformance/requests/stored.xml")));
        let status = stored.attribute("statusLocation").unwrap();
        let path = status.strip_prefix(&format!("http://{address}")).unwrap();
        let ended = e2e::wait_until(Duration::from_secs(20), || {
            let answer = Http::new(address).get(path).ok()?;
            answer.text().contains("ProcessSucceeded").then_some(answer)
        });
        succeeded(&ended.unwrap());
    });
}
