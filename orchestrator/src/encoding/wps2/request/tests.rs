//! Requests of WPS 2.0 as clients and the conformance suite write them, and the standard's exceptions for wrong ones.

use wps_remote_protocol::{BoundingBox, Content, Value};

use super::super::super::Face;
use super::super::super::fixtures::lookup;
use super::super::execute::Mode;
use super::*;

const HEAD: &str = r#"service="WPS" version="2.0.0" xmlns:wps="http://www.opengis.net/wps/2.0" xmlns:ows="http://www.opengis.net/ows/2.0" xmlns:xlink="http://www.w3.org/1999/xlink""#;
const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn xml(document: &str) -> Result<Request, Fault> {
    from_xml(document.as_bytes(), &lookup)
}

fn kvp(query: &str) -> Result<Request, Fault> {
    from_kvp(&Query::parse(query)?)
}

fn execute(attributes: &str, inside: &str) -> Result<Execute, Fault> {
    let document = format!(
        "<wps:Execute {HEAD} {attributes}><ows:Identifier>test:Everything</ows:Identifier>{inside}</wps:Execute>"
    );
    match xml(&document)? {
        Request::Execute(execute) => Ok(*execute),
        other => panic!("{other:?}"),
    }
}

fn value(id: &str, data: &str) -> Result<Value, Fault> {
    let mut execute =
        execute("mode='sync' response='raw'", &format!("<wps:Input id='{id}'>{data}</wps:Input>"))?;
    Ok(execute.inputs.remove(0).value)
}

fn refused<T: std::fmt::Debug>(request: Result<T, Fault>) -> (&'static str, String) {
    let fault = request.unwrap_err();
    (fault.kind.wps2().0, fault.locator_on(Face::Wps2).unwrap_or_default().to_owned())
}

#[test]
fn operations_by_query() {
    let job: JobId = ID.parse().unwrap();
    let none = Request::GetCapabilities { update_sequence: None };
    assert_eq!(kvp("Service=WPS&Version=2.0.0&Request=GetCapabilities"), Ok(none.clone()));
    assert_eq!(kvp("SERVICE=WPS&ACCEPTVERSIONS=2.0.0,1.0.0&REQUEST=GETCAPABILITIES"), Ok(none));
    let describe = "service=WPS&version=2.0.0&request=DescribeProcess&lang=en&Identifier=";
    assert_eq!(kvp(&format!("{describe}ALL")), Ok(Request::DescribeProcess(Identifiers::All)));
    assert_eq!(
        kvp(&format!("{describe}a:b,c:d")),
        Ok(Request::DescribeProcess(Identifiers::Some(vec!["a:b".into(), "c:d".into()])))
    );
    let with = |operation: &str| kvp(&format!("service=WPS&version=2.0.0&request={operation}&jobId={ID}"));
    assert_eq!(with("GetStatus"), Ok(Request::GetStatus(job)));
    assert_eq!(with("getresult"), Ok(Request::GetResult(job)));
    assert_eq!(with("Dismiss"), Ok(Request::Dismiss(job)));
}

#[test]
fn exceptions_of_queries() {
    let check = |query: &str, code: &str, locator: &str| {
        assert_eq!(refused(kvp(query)), (code, locator.to_owned()), "{query}");
    };
    check("service=WMS&request=GetCapabilities", "InvalidParameterValue", "service");
    check("service=WPS&request=GetCapabilities&version=3.0.0", "VersionNegotiationFailed", "AcceptVersions");
    check("service=WPS&request=GetStatus&version=2.0.0", "MissingParameterValue", "JobID");
    check("service=WPS&request=GetStatus&version=2.0.0&jobid=x", "NoSuchJob", "JobID");
    check(&format!("service=WPS&request=GetResult&jobid={ID}"), "MissingParameterValue", "version");
    check("service=WPS&request=Execute&version=2.0.0&identifier=a:b", "OperationNotSupported", "Execute");
    check("service=WPS&request=DescribeProcess&version=2.0.0", "MissingParameterValue", "Identifier");
}

#[test]
fn operations_by_document() {
    let job: JobId = ID.parse().unwrap();
    let with = |name: &str, inside: &str| xml(&format!("<wps:{name} {HEAD}>{inside}</wps:{name}>"));
    let id = format!("<wps:JobID> {ID} </wps:JobID>");
    assert_eq!(with("GetStatus", &id), Ok(Request::GetStatus(job)));
    assert_eq!(with("GetResult", &id), Ok(Request::GetResult(job)));
    assert_eq!(with("Dismiss", &id), Ok(Request::Dismiss(job)));
    assert_eq!(refused(with("GetStatus", "")), ("MissingParameterValue", "JobID".into()));
    assert_eq!(refused(with("InsertProcess", "")).0, "OperationNotSupported");
    let bare = "<wps:GetCapabilities service='WPS' xmlns:wps='http://www.opengis.net/wps/2.0'/>";
    assert!(xml(bare).is_ok(), "no version, no AcceptVersions");
    let old = "<wps:AcceptVersions xmlns:wps='http://www.opengis.net/wps/2.0'><wps:Version>1.0.0</wps:Version></wps:AcceptVersions>";
    assert_eq!(refused(with("GetCapabilities", old)).0, "VersionNegotiationFailed");
    let all = with("DescribeProcess", "<ows:Identifier>ALL</ows:Identifier>");
    assert_eq!(all, Ok(Request::DescribeProcess(Identifiers::All)));
}

#[test]
fn mode_form_and_outputs() {
    let plain = execute("", "").unwrap();
    assert_eq!((plain.mode, plain.form.raw, plain.form.store), (Mode::Sync, false, false));
    let outputs = "<wps:Output id='result1' transmission='reference' mimeType='application/zip'/><wps:Output id='count'/>";
    let full = execute("mode='async' response='raw'", outputs).unwrap();
    assert_eq!(
        (full.mode, full.form.raw, full.form.store, full.form.status),
        (Mode::Async, true, true, true)
    );
    assert!(full.form.outputs[0].as_reference && !full.form.outputs[1].as_reference);
    assert_eq!(execute("mode='auto' response='document'", "").unwrap().mode, Mode::Auto);
    assert_eq!(refused(execute("mode='later'", "")), ("NoSuchMode", "mode".into()));
    assert_eq!(refused(execute("response='loud'", "")), ("InvalidParameterValue", "response".into()));
    let nested = "<wps:Output id='result1'><wps:Output id='part'/></wps:Output>";
    assert_eq!(refused(execute("", nested)), ("NoSuchOutput", "part".into()));
    assert_eq!(refused(execute("", "<wps:Output id='count' transmission='pigeon'/>")).1, "transmission");
    assert_eq!(refused(execute("", "<wps:Output/>")), ("MissingParameterValue", "id".into()));
}

#[test]
fn nested_inputs_and_outputs_are_read_and_refused_by_name() {
    // No process here has any: the standard's answer to one that is not described (OGC 14-065r2, NoSuchInput, NoSuchOutput).
    let leaf = "<wps:Input id='leaf'><wps:Data>1</wps:Data></wps:Input>";
    let nested = format!("<wps:Input id='doc'>{leaf}<wps:Input id='other'>{leaf}</wps:Input></wps:Input>");
    assert_eq!(refused(execute("", &nested)), ("NoSuchInput", "leaf".into()));
    let outputs = "<wps:Output id='gml'><wps:Output id='part' transmission='value'><wps:Output id='x'/></wps:Output></wps:Output>";
    assert_eq!(refused(execute("", outputs)), ("NoSuchOutput", "part".into()));
    let anonymous = "<wps:Input id='doc'><wps:Input/></wps:Input>";
    assert_eq!(refused(execute("", anonymous)), ("NoSuchInput", "doc".into()));
    let deep = format!("{}{}", "<wps:Input id='doc'>".repeat(300), "</wps:Input>".repeat(300));
    assert_eq!(refused(execute("", &deep)).0, "NoApplicableCode", "that it is no XML we take weighs more");
}

#[test]
fn values_of_all_kinds() {
    let literal =
        "<wps:Data>\n <wps:LiteralValue dataType='xs:double' uom='m'>5</wps:LiteralValue>\n</wps:Data>";
    assert_eq!(value("level", literal), Ok(Value::Literal { text: "5".into(), uom: Some("m".into()) }));
    assert_eq!(value("level", "<wps:Data>5</wps:Data>"), Ok(Value::literal("5")));
    let box_expected = Value::BoundingBox(BoundingBox {
        crs: Some("EPSG:4326".into()),
        lower: vec![1.0, 2.0],
        upper: vec![3.0, 4.0],
    });
    let area = "<wps:Data><ows:BoundingBox crs='EPSG:4326'><ows:LowerCorner>1 2</ows:LowerCorner><ows:UpperCorner>3 4</ows:UpperCorner></ows:BoundingBox></wps:Data>";
    assert_eq!(value("bbox", area), Ok(box_expected.clone()));
    assert_eq!(value("bbox", "<wps:Data> 1,2,3,4,EPSG:4326 </wps:Data>"), Ok(box_expected));
    // The echo test of the conformance suite: an element without prefix, without MIME type.
    let Ok(Value::Complex { content: Content::Text(text), media_type, .. }) =
        value("doc", "<wps:Data><testElement>hello_complex</testElement></wps:Data>")
    else {
        panic!()
    };
    assert!(text.starts_with("<testElement ") && text.ends_with(">hello_complex</testElement>"), "{text}");
    assert_eq!(media_type, "");
    let bytes = value("image", "<wps:Data mimeType='image/tiff' encoding='base64'>AQID</wps:Data>");
    assert!(matches!(bytes, Ok(Value::Complex { content: Content::Bytes(b), .. }) if b == [1, 2, 3]));
    let reference = "<wps:Reference xlink:href='http://h/car.txt' mimeType='text/plain'/>";
    assert_eq!(value("name", reference), Ok(Value::reference("http://h/car.txt", "text/plain")));
    assert_eq!(refused(value("doc", "<wps:Input id='part'/>")), ("NoSuchInput", "part".into()));
    assert_eq!(refused(value("doc", "")), ("MissingParameterValue", "Data".into()));
    assert_eq!(refused(value("bbox", "<wps:Data>1,2</wps:Data>")), ("WrongInputData", "bbox".into()));
    assert_eq!(
        refused(value("doc", "<wps:Reference xlink:href='ftp://h/'/>")),
        ("WrongInputData", "doc".into())
    );
}

#[test]
fn broken_and_hostile_documents() {
    let good = format!("<wps:Execute {HEAD}><ows:Identifier>test:Everything</ows:Identifier></wps:Execute>");
    let many = format!("<wps:Input id='name'><wps:Data>x</wps:Data></wps:Input>{}", "").repeat(10_000);
    assert_eq!(refused(execute("", &many)), ("TooManyInputs", "Input".into()));
    assert_eq!(refused(xml(&good.replace("test:", "no:"))), ("NoSuchProcess", "no:Everything".into()));
    assert_eq!(
        refused(xml(&good.replace("version=\"2.0.0\"", ""))),
        ("MissingParameterValue", "version".into())
    );
    for bad in [good.replace("</wps:Execute>", ""), format!("<!DOCTYPE x>{good}"), format!("{good}<x/>")] {
        assert_eq!(refused(xml(&bad)), ("NoApplicableCode", String::new()));
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = from_xml(&bytes, &lookup);
    }

    #[test]
    fn mutilated_requests_never_panic(cut in 0usize..2000, junk in "[<>&;'\"/a-zé]{0,8}") {
        let document = format!("<wps:Execute {HEAD} mode='async'><ows:Identifier>test:Everything</ows:Identifier><wps:Input id='doc'><wps:Data><wps:LiteralValue>1</wps:LiteralValue></wps:Data></wps:Input><wps:Output id='gml' transmission='reference'/></wps:Execute>");
        let cut = cut.min(document.len());
        let _ = xml(&format!("{}{junk}{}", &document[..cut], &document[cut..]));
        let _ = xml(&format!("{}{junk}", &document[..cut]));
    }
}
