//! What map clients send, word for word where it is odd, and what they read of the answers.

use super::world::world;
use super::wps::{at_once, done, never};
use crate::http::HttpConfig;

const NAMES: &str = "xmlns:wps='http://www.opengis.net/wps/1.0.0' xmlns:ows='http://www.opengis.net/ows/1.1' xmlns:xlink='http://www.w3.org/1999/xlink'";

#[tokio::test]
async fn qgis_wps_client() {
    let world = world(HttpConfig::default(), at_once).await;
    // An empty identifier in the question for the capabilities.
    let capabilities = world.get("/wps?Request=GetCapabilities&identifier=&Service=WPS&Version=1.0.0").await;
    let text = capabilities.xml(200);
    // It pairs identifiers, titles and abstracts by their index.
    let offered = &text[text.find("<wps:ProcessOfferings>").unwrap()..];
    let count = |name: &str| offered.matches(&format!("<{name}>")).count();
    assert_eq!((count("ows:Identifier"), count("ows:Title"), count("ows:Abstract")), (2, 2, 2), "{offered}");
    assert_eq!(text[..text.len() - offered.len()].matches("<ows:Abstract>").count(), 1);
    let describe = "/wps?Request=DescribeProcess&identifier=test:Everything&Service=WPS&Version=1.0.0";
    assert!(world.get(describe).await.xml(200).contains("<BoundingBoxData>"));
    // A title in each input, complex data without a type, a prefix before `dimensions`.
    let execute = format!(
        "<wps:Execute service='WPS' version='1.0.0' {NAMES}><ows:Identifier>test:Everything</ows:Identifier><wps:DataInputs>\
         <wps:Input><ows:Identifier>doc</ows:Identifier><ows:Title>doc</ows:Title><wps:Data><wps:ComplexData><a/></wps:ComplexData></wps:Data></wps:Input>\
         <wps:Input><ows:Identifier>bbox</ows:Identifier><ows:Title>bbox</ows:Title><wps:Data><wps:BoundingBoxData ows:dimensions='2'>\
         <ows:LowerCorner>1 2</ows:LowerCorner><ows:UpperCorner>3 4</ows:UpperCorner></wps:BoundingBoxData></wps:Data></wps:Input></wps:DataInputs>\
         <wps:ResponseForm><wps:ResponseDocument lineage='false' storeExecuteResponse='false' status='false'><wps:Output>\
         <ows:Identifier>count</ows:Identifier></wps:Output></wps:ResponseDocument></wps:ResponseForm></wps:Execute>"
    );
    assert!(world.post("/wps", &execute).await.xml(200).contains(">42</wps:LiteralData>"));
}

#[tokio::test]
async fn mapstore2_executes_and_polls() {
    let world = world(HttpConfig::default(), never).await;
    let execute = format!(
        "<wps:Execute version='1.0.0' service='WPS' {NAMES}><ows:Identifier>test:Everything</ows:Identifier><wps:DataInputs/>\
         <wps:ResponseForm><wps:ResponseDocument storeExecuteResponse='true' status='true'><wps:Output asReference='true'>\
         <ows:Identifier>result1</ows:Identifier></wps:Output></wps:ResponseDocument></wps:ResponseForm></wps:Execute>"
    );
    let headers = [("Accept", "application/xml"), ("Content-Type", "application/xml")];
    let path = "/geoserver/wps?service=WPS&version=1.0.0&REQUEST=Execute";
    let answer = world.send("POST", path, &headers, execute.as_bytes()).await;
    answer.xml(200);
    // It cuts the id out of the location and builds its own address.
    let location = answer.attribute("statusLocation");
    let id = location.split("executionId=").nth(1).unwrap().to_owned();
    assert_eq!(id, world.newest().to_string());
    let poll =
        format!("/geoserver/wps?service=WPS&version=1.0.0&REQUEST=GetExecutionStatus&executionId={id}");
    let waiting = world.send("GET", &poll, &headers[..1], b"").await;
    assert!(waiting.xml(200).contains("<wps:ProcessAccepted>"));
    assert_eq!(waiting.attribute("statusLocation"), location, "older ones look for it in every answer");
    let output = world.keep(world.newest(), "result1", "lines.zip", b"PK", "application/zip");
    world.set(world.newest(), done(vec![output])).await;
    let ended = world.send("GET", &poll, &headers[..1], b"").await;
    assert_eq!(ended.attribute("mimeType"), "application/zip");
    assert_eq!(ended.attribute("statusLocation"), location);
    assert_eq!(world.get(&ended.link("href", &world)).await.body, b"PK");
}
