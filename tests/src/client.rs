//! A client of WPS 1.0.0 for tests: builds requests, reads answers. Strict where the standard is, so that a wrong document
//! fails a test here and not in somebody's desktop program.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::{Answer, Http};
use crate::xml::Node;

/// Namespace of WPS 1.0.0.
pub const NS_WPS: &str = "http://www.opengis.net/wps/1.0.0";
/// Namespace of OWS Common 1.1.
pub const NS_OWS: &str = "http://www.opengis.net/ows/1.1";

/// A client of one orchestrator, with one kept connection.
#[derive(Debug)]
pub struct Wps {
    address: SocketAddr,
    /// The connection, for requests of a test's own.
    pub http: Http,
}

/// What a job's document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// `ProcessAccepted`.
    Accepted,
    /// `ProcessStarted` with its percentage.
    Started(u8),
    /// `ProcessPaused`: its agent is away.
    Paused(u8),
    /// `ProcessSucceeded`.
    Succeeded,
    /// `ProcessFailed`: the codes and texts of its exceptions.
    Failed(String),
}

impl Status {
    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed(_))
    }
}

/// An exception report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// `exceptionCode`.
    pub code: String,
    /// `locator`, or empty.
    pub locator: String,
    /// `ExceptionText`.
    pub text: String,
}

/// An Execute request in the making.
#[derive(Debug, Clone)]
pub struct Execute {
    process: String,
    inputs: Vec<(String, String)>,
    form: String,
}

impl Execute {
    /// A synchronous request for a document with all outputs.
    pub fn new(process: &str) -> Self {
        Self { process: process.to_owned(), inputs: Vec::new(), form: String::new() }
    }

    /// A literal input.
    #[must_use]
    pub fn literal(mut self, id: &str, value: &str) -> Self {
        self.inputs.push((id.to_owned(), format!("<wps:LiteralData>{}</wps:LiteralData>", escape(value))));
        self
    }

    /// A complex input given as text.
    #[must_use]
    pub fn complex(mut self, id: &str, media_type: &str, value: &str) -> Self {
        let data = format!("<wps:ComplexData mimeType=\"{media_type}\">{}</wps:ComplexData>", escape(value));
        self.inputs.push((id.to_owned(), data));
        self
    }

    /// The bare bytes of one output.
    #[must_use]
    pub fn raw(mut self, output: &str) -> Self {
        self.form = format!(
            "<wps:ResponseForm><wps:RawDataOutput><ows:Identifier>{output}</ows:Identifier></wps:RawDataOutput>\
             </wps:ResponseForm>"
        );
        self
    }

    /// Asynchronous, with progress; all outputs inline.
    #[must_use]
    pub fn stored(self) -> Self {
        self.document("storeExecuteResponse=\"true\" status=\"true\"", "")
    }

    /// Asynchronous, with progress; this output by reference.
    #[must_use]
    pub fn stored_reference(self, output: &str) -> Self {
        let output = format!(
            "<wps:Output asReference=\"true\"><ows:Identifier>{output}</ows:Identifier></wps:Output>"
        );
        self.document("storeExecuteResponse=\"true\" status=\"true\"", &output)
    }

    /// Any response document.
    #[must_use]
    pub fn document(mut self, attributes: &str, outputs: &str) -> Self {
        self.form = format!(
            "<wps:ResponseForm><wps:ResponseDocument {attributes}>{outputs}</wps:ResponseDocument></wps:ResponseForm>"
        );
        self
    }

    /// The request as XML.
    pub fn to_xml(&self) -> String {
        let mut inputs = String::new();
        for (id, data) in &self.inputs {
            inputs += &format!(
                "<wps:Input><ows:Identifier>{id}</ows:Identifier><wps:Data>{data}</wps:Data></wps:Input>"
            );
        }
        if !inputs.is_empty() {
            inputs = format!("<wps:DataInputs>{inputs}</wps:DataInputs>");
        }
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<wps:Execute service=\"WPS\" version=\"1.0.0\" \
             xmlns:wps=\"{NS_WPS}\" xmlns:ows=\"{NS_OWS}\"><ows:Identifier>{}</ows:Identifier>{inputs}{}</wps:Execute>",
            self.process, self.form
        )
    }
}

/// Text for an XML document; a carriage return survives only as a reference.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\r', "&#13;")
}

/// Text for a query string.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Wps {
    /// A client of the orchestrator at this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, http: Http::new(address) }
    }

    /// GET of `/wps` with `service=WPS&version=1.0.0` and this.
    pub fn get(&mut self, query: &str) -> Answer {
        self.http.get(&format!("/wps?service=WPS&version=1.0.0&{query}")).expect("the orchestrator answers")
    }

    /// POST of a document to `/wps`.
    pub fn post(&mut self, document: &str) -> Answer {
        self.http.post("/wps", "text/xml", document.as_bytes()).expect("the orchestrator answers")
    }

    /// Identifiers of the processes on offer.
    pub fn processes(&mut self) -> io::Result<Vec<String>> {
        let answer = self.http.get("/wps?service=WPS&request=GetCapabilities")?;
        let root = Node::parse(&answer.body)
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("{why}: {}", answer.text())))?;
        assert_eq!(
            (root.name.as_str(), root.namespace.as_str()),
            ("Capabilities", NS_WPS),
            "{}",
            answer.text()
        );
        Ok(root
            .all("Process")
            .iter()
            .filter_map(|process| process.text_of("Identifier").map(str::to_owned))
            .collect())
    }

    /// Sends an Execute by POST.
    pub fn execute(&mut self, request: &Execute) -> Answer {
        self.post(&request.to_xml())
    }

    /// Sends an asynchronous Execute; gives the status location.
    ///
    /// # Panics
    /// If it was not accepted.
    pub fn submit(&mut self, request: &Execute) -> String {
        let answer = self.execute(request);
        let root = document(&answer, "ExecuteResponse");
        root.attribute("statusLocation")
            .unwrap_or_else(|| panic!("no statusLocation: {}", answer.text()))
            .to_owned()
    }

    /// GET of an address that the orchestrator gave out.
    pub fn fetch(&mut self, url: &str) -> Answer {
        let target = self.target(url);
        self.http.get(&target).expect("the orchestrator answers")
    }

    /// The path and query of an address on this orchestrator.
    ///
    /// # Panics
    /// If it is one of somewhere else.
    pub fn target(&self, url: &str) -> String {
        url.strip_prefix(&format!("http://{}", self.address))
            .unwrap_or_else(|| panic!("{url} is not on http://{}", self.address))
            .to_owned()
    }

    /// An address of another orchestrator, on this one.
    pub fn here(&self, url: &str) -> String {
        let path =
            url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        format!("http://{}/{path}", self.address)
    }

    /// The state of a job.
    pub fn status(&mut self, location: &str) -> Status {
        status(&document(&self.fetch(location), "ExecuteResponse"))
    }

    /// Waits until a job's state satisfies the test.
    ///
    /// # Panics
    /// If that takes longer than `limit`, or the job ends otherwise.
    pub fn wait_until(
        &mut self,
        location: &str,
        limit: Duration,
        mut test: impl FnMut(&Status) -> bool,
    ) -> Status {
        let start = Instant::now();
        loop {
            let status = self.status(location);
            if test(&status) {
                return status;
            }
            assert!(!status.is_final(), "the job ended as {status:?}");
            assert!(start.elapsed() < limit, "still {status:?} after {limit:?}");
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// Waits until a job has ended.
    pub fn wait(&mut self, location: &str) -> Status {
        self.wait_until(location, Duration::from_secs(60), Status::is_final)
    }

    /// Gives a job up, as GeoServer's clients do.
    pub fn dismiss(&mut self, location: &str) -> Answer {
        let id = execution_id(location);
        self.get(&format!("request=Dismiss&executionId={id}"))
    }
}

/// The job's id in its status location.
pub fn execution_id(location: &str) -> String {
    let (_, id) =
        location.split_once("executionId=").unwrap_or_else(|| panic!("no executionId in {location}"));
    id.split('&').next().unwrap_or_default().to_owned()
}

/// The document of an answer, whose root must have this name.
///
/// # Panics
/// If it is another.
pub fn document(answer: &Answer, root: &str) -> Node {
    let node = Node::parse(&answer.body)
        .unwrap_or_else(|why| panic!("HTTP {}: {why}: {}", answer.status, answer.text()));
    assert_eq!(node.name, root, "HTTP {}: {}", answer.status, answer.text());
    // Clients compare the whole header value (OWSLib, MapStore2).
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind == "text/xml" || kind == "application/xml", "Content-Type: {kind}");
    node
}

/// The state in an ExecuteResponse.
pub fn status(response: &Node) -> Status {
    let status = response.find("Status").unwrap_or_else(|| panic!("no Status: {response:?}"));
    let state = status.children.first().unwrap_or_else(|| panic!("an empty Status: {response:?}"));
    match state.name.as_str() {
        "ProcessAccepted" => Status::Accepted,
        "ProcessStarted" | "ProcessPaused" => {
            let percent = state.attribute("percentCompleted").and_then(|percent| percent.parse().ok());
            let percent = percent.unwrap_or_else(|| panic!("no percentCompleted: {state:?}"));
            if state.name == "ProcessPaused" { Status::Paused(percent) } else { Status::Started(percent) }
        }
        "ProcessSucceeded" => Status::Succeeded,
        "ProcessFailed" => {
            let texts: Vec<String> = state
                .all("Exception")
                .iter()
                .map(|e| {
                    let code = e.attribute("exceptionCode").unwrap_or_default();
                    format!("{code}: {}", e.text_of("ExceptionText").unwrap_or_default())
                })
                .collect();
            Status::Failed(texts.join("\n"))
        }
        other => panic!("unknown state {other}"),
    }
}

/// The exception of an answer with one of these HTTP codes.
///
/// # Panics
/// If the answer is anything else.
pub fn exception(answer: &Answer) -> Exception {
    assert!(answer.status >= 400, "HTTP {}: {}", answer.status, answer.text());
    let root = document(answer, "ExceptionReport");
    assert_eq!(root.namespace, NS_OWS);
    let exception = root.find("Exception").unwrap_or_else(|| panic!("no Exception: {}", answer.text()));
    Exception {
        code: exception.attribute("exceptionCode").unwrap_or_default().to_owned(),
        locator: exception.attribute("locator").unwrap_or_default().to_owned(),
        text: exception.text_of("ExceptionText").unwrap_or_default().to_owned(),
    }
}

/// The data of an inline output in an ExecuteResponse: its text, or the text of the document within.
pub fn output<'a>(response: &'a Node, id: &str) -> &'a Node {
    response
        .find("ProcessOutputs")
        .and_then(|outputs| outputs.children.iter().find(|output| output.text_of("Identifier") == Some(id)))
        .unwrap_or_else(|| panic!("no output {id}: {response:?}"))
}
