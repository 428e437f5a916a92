//! Requests as clients in use write them, the standard's exceptions for wrong ones, and hostile input.

use wps_remote_protocol::{BoundingBox, Content, Value};

use super::super::super::Face;
use super::super::super::fixtures::lookup;
use super::*;

const HEAD: &str = r#"service="WPS" version="1.0.0" xmlns:wps="http://www.opengis.net/wps/1.0.0" xmlns:ows="http://www.opengis.net/ows/1.1" xmlns:xlink="http://www.w3.org/1999/xlink""#;

fn xml(document: &str) -> Result<Request, Fault> {
    from_xml(document.as_bytes(), &lookup)
}

fn kvp(query: &str) -> Result<Request, Fault> {
    from_kvp(&Query::parse(query)?, &lookup)
}

fn execute(request: Result<Request, Fault>) -> Execute {
    match request.unwrap() {
        Request::Execute(execute) => *execute,
        other => panic!("{other:?}"),
    }
}

/// An Execute of the process that has everything, with this between identifier and end.
fn everything(inside: &str) -> Result<Request, Fault> {
    xml(&format!(
        "<wps:Execute {HEAD}><ows:Identifier>test:Everything</ows:Identifier>{inside}</wps:Execute>"
    ))
}

/// The first input's value.
fn value(data: &str) -> Result<Value, Fault> {
    let id = if data.contains("bbox-here") { "bbox" } else { "doc" };
    input(id, data)
}

fn input(id: &str, data: &str) -> Result<Value, Fault> {
    let request = everything(&format!(
        "<wps:DataInputs><wps:Input><ows:Identifier> {id}\n</ows:Identifier>{data}</wps:Input></wps:DataInputs>"
    ))?;
    Ok(execute(Ok(request)).inputs.remove(0).value)
}

/// Code and locator of a refusal.
fn refused(request: Result<Request, Fault>) -> (&'static str, String, u16) {
    let fault = request.unwrap_err();
    let (code, status) = fault.kind.wps1();
    (code, fault.locator_on(Face::Wps1).unwrap_or_default().to_owned(), status)
}

fn text_of(value: Value) -> String {
    match value {
        Value::Complex { content: Content::Text(text), .. } | Value::Literal { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn capabilities_by_query() {
    let plain = Request::GetCapabilities { update_sequence: None };
    for query in [
        "service=WPS&request=GetCapabilities",
        "SERVICE=wps&REQUEST=getcapabilities&aCcepTVersioNS=0.4.0,1.0.0",
        "service=WPS&request=GetCapabilities&version=1.0.0&language=",
        "service=WPS&request=GetCapabilities&AcceptFormats=application/x-bxml&Sections=All&strict=true",
        "Request=GetCapabilities&identifier=&Service=WPS&Version=1.0.0",
        "service=WPS&request=GetCapabilities&language=*&updateSequence=abc",
    ] {
        assert_eq!(kvp(query), Ok(plain.clone()), "{query}");
    }
    assert_eq!(
        kvp("service=WPS&request=GetCapabilities&updateSequence=7"),
        Ok(Request::GetCapabilities { update_sequence: Some(7) })
    );
}

#[test]
fn exceptions_of_queries() {
    let check = |query: &str, code: &str, locator: &str, status: u16| {
        assert_eq!(refused(kvp(query)), (code, locator.to_owned(), status), "{query}");
    };
    check("", "MissingParameterValue", "service", 400);
    check("service=WPS", "MissingParameterValue", "request", 400);
    check("service=WMS&request=GetCapabilities", "InvalidParameterValue", "service", 400);
    check("service=WPS&request=Dance", "OperationNotSupported", "Dance", 501);
    check(
        "service=WPS&request=GetCapabilities&AcceptVersions=3.0.0",
        "VersionNegotiationFailed",
        "AcceptVersions",
        400,
    );
    check(
        "service=WPS&request=GetCapabilities&Version=3.0.0",
        "VersionNegotiationFailed",
        "AcceptVersions",
        400,
    );
    check("service=WPS&request=GetCapabilities&language=tlh", "InvalidParameterValue", "language", 400);
    check("service=WPS&request=DescribeProcess&identifier=x", "MissingParameterValue", "version", 400);
    check("service=WPS&request=DescribeProcess&version=1.0.0", "MissingParameterValue", "Identifier", 400);
    check(
        "service=WPS&request=DescribeProcess&version=1.0.0&Identifierx",
        "MissingParameterValue",
        "Identifier",
        400,
    );
    check(
        "service=WPS&request=DescribeProcess&version=0.4&identifier=x",
        "InvalidParameterValue",
        "version",
        400,
    );
    check(
        "service=WPS&request=Execute&version=1.0.0&identifier=a:b",
        "InvalidParameterValue",
        "Identifier",
        400,
    );
    check("service=WPS&request=Execute&version=1.0.0", "MissingParameterValue", "Identifier", 400);
    check("service=WPS&request=GetExecutionStatus", "MissingParameterValue", "executionId", 400);
    check("service=WPS&request=Dismiss&executionId=../../etc", "InvalidParameterValue", "executionId", 400);
    let execute = "service=WPS&version=1.0.0&request=Execute&identifier=test:Everything";
    check(&format!("{execute}&status=true"), "InvalidParameterValue", "status", 400);
    check(&format!("{execute}&lineage=maybe"), "InvalidParameterValue", "lineage", 400);
    check(&format!("{execute}&DataInputs=level=1@colour=red"), "InvalidParameterValue", "DataInputs", 400);
    check(&format!("{execute}&RawDataOutput=a;b"), "InvalidParameterValue", "RawDataOutput", 400);
    check(
        &format!("{execute}&RawDataOutput=a&ResponseDocument=b"),
        "InvalidParameterValue",
        "RawDataOutput",
        400,
    );
    check(&format!("{execute}&DataInputs=level"), "InvalidParameterValue", "DataInputs", 400);
    check(&format!("{execute}&DataInputs=bbox=1,2,3"), "InvalidParameterValue", "bbox", 400);
    check(&format!("{execute}&DataInputs=doc=@href=file:///etc/passwd"), "InvalidParameterValue", "doc", 400);
}

#[test]
fn describe_by_query_and_document() {
    let some = |names: &[&str]| {
        Request::DescribeProcess(Identifiers::Some(names.iter().map(|&n| n.to_owned()).collect()))
    };
    assert_eq!(
        kvp("service=WPS&version=1.0.0&request=DescribeProcess&identifier=a:b,c:d"),
        Ok(some(&["a:b", "c:d"]))
    );
    for all in ["all", "ALL"] {
        let query = format!("service=WPS&version=1.0.0&request=DescribeProcess&identifier={all}");
        assert_eq!(kvp(&query), Ok(Request::DescribeProcess(Identifiers::All)));
    }
    let document = format!(
        "<DescribeProcess xmlns=\"{WPS_1_0}\" service='WPS' version='1.0.0'><o:Identifier xmlns:o='http://www.opengis.net/ows/1.1'> a:b </o:Identifier></DescribeProcess>"
    );
    assert_eq!(xml(&document), Ok(some(&["a:b"])));
    let none = format!("<DescribeProcess xmlns=\"{WPS_1_0}\" service='WPS' version='1.0.0'/>");
    assert_eq!(refused(xml(&none)), ("MissingParameterValue", "Identifier".into(), 400));
}

#[test]
fn capabilities_by_document() {
    let document = |inside: &str| {
        format!(
            "<wps:GetCapabilities xmlns:wps=\"{WPS_1_0}\" xmlns:ows='http://www.opengis.net/ows/1.1' service='WPS'>{inside}</wps:GetCapabilities>"
        )
    };
    let accept = |version: &str| {
        document(&format!("<wps:AcceptVersions><ows:Version>{version}</ows:Version></wps:AcceptVersions>"))
    };
    assert!(xml(&document("")).is_ok());
    assert!(xml(&accept("1.0.0")).is_ok());
    assert_eq!(refused(xml(&accept("9.9.9"))).0, "VersionNegotiationFailed");
    assert_eq!(refused(xml(&document("").replace("'WPS'", "'WFS'"))).1, "service");
    assert_eq!(refused(xml(&document("").replace("GetCapabilities", "GetStuff"))).0, "OperationNotSupported");
    assert_eq!(refused(xml(&document("").replace("wps/1.0.0", "wps/0.4"))).0, "NoApplicableCode");
}

#[test]
fn quirk_01_prefix_soup_and_foreign_things_are_ignored() {
    let document = format!(
        "<p0:Execute xmlns:p0='{WPS_1_0}' xmlns='urn:x' xmlns:q='http://www.opengis.net/ows/1.1' xmlns:aw='http://www.aw3.org/2001/XMLSchema-instance'
          aw:schemaLocation='a ../b.xsd' service='WPS' version='1.0.0' strict='true'><Foreign><q:Identifier>no</q:Identifier></Foreign>
          <q:Identifier>test:Everything</q:Identifier><p0:DataInputs><p0:Input><q:Identifier>level</q:Identifier><q:Title>L</q:Title>
          <p0:Data><p0:LiteralData foreign='1'>5</p0:LiteralData></p0:Data></p0:Input></p0:DataInputs></p0:Execute>"
    );
    assert_eq!(execute(xml(&document)).inputs[0].value, Value::literal("5"));
}

#[test]
fn quirk_02_cdata_and_blanks() {
    let cdata = "<wps:Data><wps:ComplexData mimeType='application/json'><![CDATA[{\"a\":1}]]></wps:ComplexData></wps:Data>";
    assert_eq!(text_of(value(cdata).unwrap()), "{\"a\":1}");
}

#[test]
fn quirk_03_literal_types_in_any_spelling() {
    for spelling in [
        "",
        "dataType='xs:double'",
        "dataType='double'",
        "dataType='http://www.w3.org/TR/xmlschema-2/#double'",
    ] {
        let data = format!("<wps:Data><wps:LiteralData {spelling} uom='m'>1.5</wps:LiteralData></wps:Data>");
        assert_eq!(
            input("level", &data).unwrap(),
            Value::Literal { text: "1.5".into(), uom: Some("m".into()) }
        );
    }
    let spaced = input("name", "<wps:Data><wps:LiteralData> a  b\n</wps:LiteralData></wps:Data>").unwrap();
    assert_eq!(text_of(spaced), " a  b\n", "values are not trimmed");
}

#[test]
fn quirk_04_complex_data_without_mime_type_is_left_to_the_description() {
    let inline = "<wps:Data><wps:ComplexData><gml:P xmlns:gml='g'/></wps:ComplexData></wps:Data>";
    let Value::Complex { media_type, content, .. } = value(inline).unwrap() else { panic!() };
    assert_eq!(media_type, "");
    let Content::Text(text) = content else { panic!() };
    assert!(
        text.starts_with("<gml:P ") && text.contains("xmlns:ows=") && text.ends_with("xmlns:gml='g'/>"),
        "{text}"
    );
}

#[test]
fn quirk_05_base64_by_attribute_or_by_format() {
    let bytes = |id: &str, data: &str| match input(id, data) {
        Ok(Value::Complex { content: Content::Bytes(bytes), .. }) => Some(bytes),
        Ok(_) => None,
        Err(fault) => panic!("{fault}"),
    };
    let said = "<wps:Data><wps:ComplexData mimeType='text/plain' encoding='Base64'>\n AQ\nID \n</wps:ComplexData></wps:Data>";
    assert_eq!(bytes("doc", said), Some(vec![1, 2, 3]));
    let unsaid = "<wps:Data><wps:ComplexData mimeType='image/tiff'>AQID</wps:ComplexData></wps:Data>";
    assert_eq!(bytes("image", unsaid), Some(vec![1, 2, 3]));
    let none = "<wps:Data><wps:ComplexData mimeType='image/tiff'>not base64!</wps:ComplexData></wps:Data>";
    assert_eq!(bytes("image", none), None);
    let wrong = "<wps:Data><wps:ComplexData encoding='base64'>$$</wps:ComplexData></wps:Data>";
    assert_eq!(input("doc", wrong).unwrap_err().locator.as_deref(), Some("doc"));
    let odd = "<wps:Data><wps:ComplexData encoding='rot13'>x</wps:ComplexData></wps:Data>";
    assert_eq!(input("doc", odd).unwrap_err().kind, crate::encoding::FaultKind::NoSuchFormat);
    // Larger than one chunk of the decoder, and with its length no multiple of anything.
    use base64::Engine;
    let large: Vec<u8> = (0..100_001_u32).map(|n| n.to_le_bytes()[0]).collect();
    let text = base64::engine::general_purpose::STANDARD.encode(&large);
    let data = format!("<wps:Data><wps:ComplexData encoding='base64'>{text}</wps:ComplexData></wps:Data>");
    assert_eq!(bytes("image", &data), Some(large));
}

#[test]
fn quirk_06_bounding_boxes_in_all_forms() {
    let crs = "urn:ogc:def:crs:EPSG:6.6:4326";
    let expected = |crs: Option<&str>| {
        Value::BoundingBox(BoundingBox {
            crs: crs.map(str::to_owned),
            lower: vec![46.0, 102.0],
            upper: vec![47.0, 103.0],
        })
    };
    let corners = "<ows:LowerCorner>46 102</ows:LowerCorner><ows:UpperCorner>47 103</ows:UpperCorner>";
    for data in [
        format!(
            "<wps:Data><wps:BoundingBoxData crs='{crs}' dimensions='2'>{corners}</wps:BoundingBoxData></wps:Data>"
        ),
        format!("<wps:Data><ows:BoundingBox crs='{crs}'>{corners}</ows:BoundingBox></wps:Data>"),
        format!(
            "<wps:Data><wps:BoundingBoxData crs='{crs}' ows:dimensions='2'>{corners}</wps:BoundingBoxData></wps:Data>"
        ),
    ] {
        assert_eq!(input("bbox", &data).unwrap(), expected(Some(crs)));
    }
    let head = "service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&DataInputs=bbox=";
    for (text, crs) in [
        (format!("46,102,47,103,{crs},2"), Some(crs)),
        (format!("46,102,47,103,{crs}"), Some(crs)),
        ("46,102,47,103".to_owned(), None),
        ("46%2C102%2C47%2C103".to_owned(), None),
    ] {
        assert_eq!(execute(kvp(&format!("{head}{text}"))).inputs[0].value, expected(crs), "{text}");
    }
    for wrong in [
        "46,102,47",
        "a,b,c,d",
        "1,2,3,4,EPSG:4326,3",
        "1,2,3,4,EPSG:4326,2,9",
        "NaN,1,2,3",
        "1,2,3,4,5,6,7,8",
        "",
    ] {
        assert_eq!(refused(kvp(&format!("{head}{wrong}"))).1, "bbox", "{wrong}");
    }
}

#[test]
fn quirk_07_no_response_form_means_all_outputs() {
    for form in ["", "<wps:ResponseForm/>", "<wps:ResponseForm><wps:ResponseDocument/></wps:ResponseForm>"] {
        let form = execute(everything(form)).form;
        assert!(form.outputs.is_empty() && !form.raw && !form.store, "{form:?}");
    }
    let stored = "<wps:ResponseForm><wps:ResponseDocument storeExecuteResponse='true' status='true' lineage='1'/></wps:ResponseForm>";
    let form = execute(everything(stored)).form;
    assert!(form.store && form.status && form.lineage && form.outputs.is_empty());
}

#[test]
fn an_answer_has_one_form_and_an_input_one_value() {
    let raw = "<wps:RawDataOutput><ows:Identifier>count</ows:Identifier></wps:RawDataOutput>";
    for (forms, locator) in [
        (format!("{raw}{raw}"), "RawDataOutput"),
        (format!("{raw}<wps:ResponseDocument/>"), "RawDataOutput"),
        (format!("<wps:ResponseDocument storeExecuteResponse='true'/>{raw}"), "RawDataOutput"),
        ("<wps:ResponseDocument/><wps:ResponseDocument/>".to_owned(), "ResponseDocument"),
    ] {
        let fault = everything(&format!("<wps:ResponseForm>{forms}</wps:ResponseForm>")).unwrap_err();
        assert_eq!(
            (fault.kind.wps1().0, fault.locator.as_deref()),
            ("InvalidParameterValue", Some(locator)),
            "{forms}"
        );
    }
    let literal = "<wps:Data><wps:LiteralData>a</wps:LiteralData></wps:Data>";
    for second in [literal, "<wps:Reference xlink:href='http://h/'/>"] {
        let fault = input("doc", &format!("{literal}{second}")).unwrap_err();
        assert_eq!(fault.locator.as_deref(), Some("doc"), "{second}");
    }
}

#[test]
fn quirk_08_an_input_may_come_several_times() {
    let one = |text: &str| {
        format!(
            "<wps:Input><ows:Identifier>name</ows:Identifier><wps:Data><wps:LiteralData>{text}</wps:LiteralData></wps:Data></wps:Input>"
        )
    };
    let request = everything(&format!("<wps:DataInputs>{}{}</wps:DataInputs>", one("a"), one("b")));
    let inputs = execute(request).inputs;
    assert_eq!(inputs.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["name", "name"]);
    let query = "service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&DataInputs=name=a;name=b&datainputs=name=c";
    assert_eq!(execute(kvp(query)).inputs.len(), 3);
}

#[test]
fn quirk_09_references_with_and_without_xlink() {
    let expected = Value::reference("http://h/a?b=1&c=2", "text/xml");
    for attributes in [
        "xlink:href='http://h/a?b=1&amp;c=2'",
        "href='http://h/a?b=1&amp;c=2' method='GET'",
        "xlink:href=' http://h/a?b=1&amp;c=2 ' method='get' schema='s'",
    ] {
        let data = format!("<wps:Reference {attributes} mimeType='text/xml'/>");
        let mut expected = expected.clone();
        if let Value::Reference { schema, .. } = &mut expected {
            *schema = attributes.contains("schema=").then(|| "s".to_owned());
        }
        assert_eq!(input("doc", &data).unwrap(), expected);
    }
    for (data, locator) in [
        ("<wps:Reference mimeType='text/xml'/>", "href"),
        ("<wps:Reference xlink:href='file:///etc/passwd'/>", "doc"),
        ("<wps:Reference xlink:href='http://h/' method='PUT'/>", "doc"),
        ("<wps:Reference xlink:href='http://h/'><wps:Header key='a b' value='v'/></wps:Reference>", "doc"),
        (
            "<wps:Reference xlink:href='http://h/'><wps:Header key='a' value='v&#10;Host: x'/></wps:Reference>",
            "doc",
        ),
        (
            "<wps:Reference xlink:href='http://h/' method='POST'><wps:BodyReference xlink:href='file:///b'/></wps:Reference>",
            "doc",
        ),
        ("<wps:Reference xlink:href='http://h/' method='POST'><wps:BodyReference/></wps:Reference>", "href"),
        (
            "<wps:Reference xlink:href='http://h/'><wps:Body>x</wps:Body><wps:BodyReference xlink:href='http://b/'/></wps:Reference>",
            "doc",
        ),
    ] {
        assert_eq!(input("doc", data).unwrap_err().locator.as_deref(), Some(locator), "{data}");
    }
}

#[test]
fn references_by_post_carry_headers_and_body() {
    let data = "<wps:Reference xlink:href='http://h/wfs' method='POST' mimeType='text/xml'><wps:Header key='Accept' value='text/xml'/>\
                <wps:Body><wfs:GetFeature xmlns:wfs='w' service='WFS'/></wps:Body></wps:Reference>";
    let Value::Reference { headers, body, .. } = input("doc", data).unwrap() else { panic!() };
    assert_eq!(headers, [("Accept".to_owned(), "text/xml".to_owned())]);
    let body = body.unwrap();
    assert!(body.starts_with("<wfs:GetFeature ") && body.contains("service='WFS'"), "{body}");
    let cdata = "<wps:Reference xlink:href='http://h/'><wps:Body><![CDATA[a=b]]></wps:Body></wps:Reference>";
    let Value::Reference { body, .. } = input("doc", cdata).unwrap() else { panic!() };
    assert_eq!(body.as_deref(), Some("a=b"));
    let elsewhere =
        "<wps:Reference xlink:href='http://h/'><wps:BodyReference xlink:href='http://b/x'/></wps:Reference>";
    let Value::Reference { body, body_href, .. } = input("doc", elsewhere).unwrap() else { panic!() };
    assert_eq!((body, body_href.as_deref()), (None, Some("http://b/x")));
}

#[test]
fn quirk_10_queries_of_all_sorts() {
    let query = "service=WPS&Version=1.0.0&REQUEST=Execute&Identifier=test%3AEverything&storeExecuteResponse=true&status=true\
                 &DataInputs=%5Blevel%3D150%40uom%3Dm%3Bname%3Da%2520b%255D%5D&ResponseDocument=[result1=@asReference=true@mimeType=application/zip;count]";
    let execute = execute(kvp(query));
    assert_eq!(execute.inputs[0].value, Value::Literal { text: "150".into(), uom: Some("m".into()) });
    assert_eq!(execute.inputs[1].value, Value::literal("a b]"));
    assert!(execute.form.store && execute.form.status && !execute.form.raw);
    assert_eq!(execute.form.outputs.len(), 2);
    assert!(execute.form.outputs[0].as_reference && !execute.form.outputs[1].as_reference);
    assert_eq!(execute.form.outputs[0].media_type.as_deref(), Some("application/zip"));
}

#[test]
fn complex_data_by_query() {
    let query = "service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&DataInputs=doc=%7B%22a%22%3A1%7D@mimeType=application/json;image=AQID@encoding=base64&RawDataOutput=gml@mimeType=text/xml";
    let execute = execute(kvp(query));
    assert_eq!(text_of(execute.inputs[0].value.clone()), "{\"a\":1}");
    assert!(
        matches!(&execute.inputs[1].value, Value::Complex { content: Content::Bytes(b), .. } if *b == [1, 2, 3])
    );
    assert!(execute.form.raw);
}

#[test]
fn quirk_11_byte_order_mark() {
    let document = format!(
        "\u{FEFF}<?xml version=\"1.0\" encoding=\"utf-8\"?><wps:Execute {HEAD}><ows:Identifier>test:Everything</ows:Identifier></wps:Execute>"
    );
    assert!(xml(&document).is_ok());
}

#[test]
fn quirk_12_hostile_documents_get_a_standard_exception() {
    let deep = format!(
        "<wps:Execute {HEAD}><ows:Identifier>test:Everything</ows:Identifier>{}",
        "<a>".repeat(100_000)
    );
    let many = format!(
        "<wps:DataInputs>{}</wps:DataInputs>",
        "<wps:Input><ows:Identifier>name</ows:Identifier><wps:Data><wps:LiteralData>x</wps:LiteralData></wps:Data></wps:Input>".repeat(10_000)
    );
    assert_eq!(refused(everything(&many)), ("InvalidParameterValue", "DataInputs".into(), 400));
    let good = format!("<wps:Execute {HEAD}><ows:Identifier>test:Everything</ows:Identifier></wps:Execute>");
    for bad in [
        deep,
        "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>".to_owned(),
        good.replace("</wps:Execute>", ""),
        good[..good.len() / 2].to_owned(),
        format!("{good}<again/>"),
        good.replace("test:", "&lol;"),
        "not xml at all".to_owned(),
        String::new(),
    ] {
        assert_eq!(refused(xml(&bad)), ("NoApplicableCode", String::new(), 400), "{}", clip(&bad, 200));
    }
}

#[test]
fn quirk_13_languages() {
    for (language, good) in [("en", true), ("en-US", true), ("EN-gb", true), ("*", true), ("de", false)] {
        let query = format!("service=WPS&request=GetCapabilities&Language={language}");
        assert_eq!(kvp(&query).is_ok(), good, "{language}");
        let document = format!(
            "<wps:Execute {HEAD} language='{language}'><ows:Identifier>test:Everything</ows:Identifier></wps:Execute>"
        );
        assert_eq!(xml(&document).is_ok(), good, "{language}");
    }
}

#[test]
fn quirk_14_the_version_may_be_missing_in_capabilities_only() {
    let document = format!(
        "<wps:Execute {}><ows:Identifier>test:Everything</ows:Identifier></wps:Execute>",
        HEAD.replace("version=\"1.0.0\"", "")
    );
    assert_eq!(refused(xml(&document)), ("MissingParameterValue", "version".into(), 400));
}

#[test]
fn quirk_16_surplus_keys_are_ignored() {
    assert!(kvp("service=WPS&request=GetCapabilities&strict=true&foo=bar&map=/x.map").is_ok());
}

#[test]
fn identifiers_and_data_must_be_there_and_in_order() {
    let check = |inside: &str, locator: &str| {
        assert_eq!(
            refused(everything(inside)),
            ("MissingParameterValue", locator.to_owned(), 400),
            "{inside}"
        );
    };
    check("<wps:DataInputs><wps:Input><wps:Data/></wps:Input></wps:DataInputs>", "Identifier");
    check(
        "<wps:DataInputs><wps:Input><ows:Identifier>doc</ows:Identifier></wps:Input></wps:DataInputs>",
        "Data",
    );
    check(
        "<wps:DataInputs><wps:Input><ows:Identifier>doc</ows:Identifier><wps:Data/></wps:Input></wps:DataInputs>",
        "Data",
    );
    check("<wps:ResponseForm><wps:RawDataOutput/></wps:ResponseForm>", "Identifier");
    let early = format!(
        "<wps:Execute {HEAD}><wps:DataInputs/><ows:Identifier>test:Everything</ows:Identifier></wps:Execute>"
    );
    assert_eq!(refused(xml(&early)).1, "Identifier");
    let status = "<wps:ResponseForm><wps:ResponseDocument status='true'/></wps:ResponseForm>";
    assert_eq!(refused(everything(status)), ("InvalidParameterValue", "status".into(), 400));
}

#[test]
fn the_two_documents_of_the_known_integration_test() {
    let document = |form: &str| {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><wps:Execute version="1.0.0" service="WPS" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns="http://www.opengis.net/wps/1.0.0" xmlns:wfs="http://www.opengis.net/wfs" xmlns:wps="http://www.opengis.net/wps/1.0.0" xmlns:ows="http://www.opengis.net/ows/1.1" xmlns:gml="http://www.opengis.net/gml" xmlns:ogc="http://www.opengis.net/ogc" xmlns:wcs="http://www.opengis.net/wcs/1.1.1" xmlns:xlink="http://www.w3.org/1999/xlink" xsi:schemaLocation="http://www.opengis.net/wps/1.0.0 http://schemas.opengis.net/wps/1.0.0/wpsAll.xsd">
  <ows:Identifier>default:GdalContour</ows:Identifier>
  <wps:DataInputs><wps:Input><ows:Identifier>interval</ows:Identifier><wps:Data>
    <wps:ComplexData mimeType="application/octet-stream"><![CDATA[150]]></wps:ComplexData></wps:Data></wps:Input></wps:DataInputs>
  <wps:ResponseForm>{form}</wps:ResponseForm></wps:Execute>"#
        )
    };
    let raw = r#"<wps:RawDataOutput mimeType="application/octet-stream"><ows:Identifier>result1</ows:Identifier></wps:RawDataOutput>"#;
    let execute1 = execute(xml(&document(raw)));
    assert_eq!(text_of(execute1.inputs[0].value.clone()), "150");
    assert!(execute1.form.raw);
    assert_eq!(execute1.form.outputs[0].media_type.as_deref(), Some("application/octet-stream"));
    let stored = r#"<wps:ResponseDocument storeExecuteResponse="true" status="true" lineage="false"><wps:Output asReference="true"><ows:Identifier>result1</ows:Identifier></wps:Output></wps:ResponseDocument>"#;
    let form = execute(xml(&document(stored))).form;
    assert!(form.store && form.status && !form.lineage && form.outputs[0].as_reference);
}

#[test]
fn owslib_and_browser_requests() {
    // OWSLib: default output form, literal without type, everything prefixed.
    let owslib = r#"<wps100:Execute xmlns:wps100="http://www.opengis.net/wps/1.0.0" xmlns:ows110="http://www.opengis.net/ows/1.1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" service="WPS" version="1.0.0" xsi:schemaLocation="http://www.opengis.net/wps/1.0.0 http://schemas.opengis.net/wps/1.0.0/wpsExecute_request.xsd"><ows110:Identifier>test:Everything</ows110:Identifier><wps100:DataInputs><wps100:Input><ows110:Identifier>level</ows110:Identifier><wps100:Data><wps100:LiteralData>10</wps100:LiteralData></wps100:Data></wps100:Input></wps100:DataInputs><wps100:ResponseForm><wps100:ResponseDocument storeExecuteResponse="true" status="true" lineage="false"><wps100:Output asReference="true"><ows110:Identifier>result1</ows110:Identifier></wps100:Output></wps100:ResponseDocument></wps100:ResponseForm></wps100:Execute>"#;
    assert_eq!(execute(xml(owslib)).process, "test:Everything");
    // QGIS's older plugin: a title in each input, no MIME type, a prefixed `dimensions`.
    let qgis = everything(
        "<wps:DataInputs><wps:Input><ows:Identifier>bbox</ows:Identifier><ows:Title>bbox</ows:Title><wps:Data><wps:BoundingBoxData ows:dimensions=\"2\"><ows:LowerCorner>1 2</ows:LowerCorner><ows:UpperCorner>3 4</ows:UpperCorner></wps:BoundingBoxData></wps:Data></wps:Input></wps:DataInputs><wps:ResponseForm><wps:ResponseDocument lineage=\"false\" storeExecuteResponse=\"false\" status=\"false\"/></wps:ResponseForm>",
    );
    assert!(qgis.is_ok());
    // TerriaJS: everything in the query.
    let terria = "service=WPS&request=Execute&version=1.0.0&Identifier=test:Everything&DataInputs=level%3D3%3Bname%3Dx&storeExecuteResponse=true&status=true&lineage=true";
    assert!(execute(kvp(terria)).form.lineage);
}

#[test]
fn vendor_operations() {
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let job: JobId = id.parse().unwrap();
    let get = |rest: &str| kvp(&format!("service=WPS&version=1.0.0&executionId={id}&{rest}")).unwrap();
    assert_eq!(get("request=GetExecutionStatus"), Request::GetExecutionStatus(job));
    assert_eq!(get("REQUEST=dismiss"), Request::Dismiss(job));
    assert_eq!(get("request=GetExecutions"), Request::GetExecutions);
    assert_eq!(
        get("request=GetExecutionResult&outputId=result1&mimetype=application/zip"),
        Request::GetExecutionResult {
            job,
            output: Some("result1".into()),
            media_type: Some("application/zip".into())
        }
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = from_xml(&bytes, &lookup);
    }

    #[test]
    fn arbitrary_queries_never_panic(query in "(service=WPS|request=(Execute|Dismiss|DescribeProcess)|identifier=test:Everything|version=1.0.0|DataInputs=[a-z=;@%,0-9]{0,30}|&|[ -~]{0,5})*") {
        let _ = kvp(&query);
    }

    #[test]
    fn mutilated_requests_never_panic(cut in 0usize..2000, junk in "[<>&;'\"/a-zé]{0,8}") {
        let document = format!("<wps:Execute {HEAD}><ows:Identifier>test:Everything</ows:Identifier><wps:DataInputs><wps:Input><ows:Identifier>doc</ows:Identifier><wps:Data><wps:ComplexData encoding='base64'>AQID</wps:ComplexData></wps:Data></wps:Input></wps:DataInputs><wps:ResponseForm><wps:ResponseDocument><wps:Output asReference='true'><ows:Identifier>gml</ows:Identifier></wps:Output></wps:ResponseDocument></wps:ResponseForm></wps:Execute>");
        let cut = (0..=cut.min(document.len())).rev().find(|&at| document.is_char_boundary(at)).unwrap();
        let _ = xml(&format!("{}{junk}{}", &document[..cut], &document[cut..]));
        let _ = xml(&format!("{}{junk}", &document[..cut]));
    }
}
