//! Inputs that other processes of ours make, and documents that repeat what was asked for.

use wps_remote_protocol::{BoundingBox, Content, Output, Value};

use super::world::{World, world};
use super::wps::{at_once, done, never};
use crate::engine::job::JobId;
use crate::http::HttpConfig;

const NAMES: &str = "xmlns:wps='http://www.opengis.net/wps/1.0.0' xmlns:ows='http://www.opengis.net/ows/1.1' xmlns:xlink='http://www.w3.org/1999/xlink'";

/// An Execute of the process that has everything, whose document comes from here.
fn outer(reference: &str, form: &str) -> String {
    format!(
        "<wps:Execute service='WPS' version='1.0.0' {NAMES}><ows:Identifier>test:Everything</ows:Identifier><wps:DataInputs><wps:Input>\
         <ows:Identifier>doc</ows:Identifier>{reference}</wps:Input></wps:DataInputs>{form}</wps:Execute>"
    )
}

/// What GeoServer's request builder writes for an input that another process makes.
fn chained(href: &str, body: &str) -> String {
    format!(
        "<wps:Reference mimeType='text/plain' xlink:href='{href}' method='POST'><wps:Body>{body}</wps:Body></wps:Reference>"
    )
}

const RAW_COUNT: &str = "<wps:ResponseForm><wps:RawDataOutput><ows:Identifier>count</ows:Identifier></wps:RawDataOutput></wps:ResponseForm>";

fn inner(identifier: &str) -> String {
    format!(
        "<wps:Execute service='WPS' version='1.0.0'><ows:Identifier>{identifier}</ows:Identifier>{RAW_COUNT}</wps:Execute>"
    )
}

/// What the program of a job gets as its document.
async fn got(world: &World, id: JobId) -> String {
    let job = world.store.load(id).await.unwrap().unwrap();
    let input = job.inputs.iter().find(|input| input.id == "doc").unwrap();
    match input.value.resolved() {
        Value::Complex { content: Content::Shared(file), .. } => {
            std::fs::read_to_string(world.results.shared().unwrap().join(&file.path)).unwrap()
        }
        Value::Complex { content: Content::Text(text), .. } => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_execute_inside_of_an_execute_runs_here() {
    let world = world(HttpConfig::default(), at_once).await;
    let own = format!("http://{}/wps", world.address);
    for href in ["http://geoserver/wps", "http://geoserver/ows", own.as_str()] {
        let answer = world.post("/wps", &outer(&chained(href, &inner("test:Everything")), "")).await;
        assert!(answer.xml(200).contains("<wps:ProcessSucceeded>"), "{href}: {}", answer.text());
        assert_eq!(got(&world, world.newest()).await, "42", "{href}");
    }
    assert_eq!(world.accepted.lock().unwrap().len(), 6, "two jobs each");

    // By a query, of the other version, by an address for the body, and as a result that is there already.
    let query = format!(
        "{own}?service=WPS&amp;version=1.0.0&amp;request=Execute&amp;identifier=test:Everything&amp;RawDataOutput=count"
    );
    let second = "<w2:Execute xmlns:w2='http://www.opengis.net/wps/2.0' xmlns:o2='http://www.opengis.net/ows/2.0' service='WPS' version='2.0.0' \
                  mode='sync' response='raw'><o2:Identifier>test:Everything</o2:Identifier><w2:Output id='count' mimeType='text/plain'/></w2:Execute>";
    let data = percent_encoding::utf8_percent_encode(
        &inner("test:Everything").replace("<wps:Execute ", &format!("<wps:Execute {NAMES} ")),
        percent_encoding::NON_ALPHANUMERIC,
    )
    .to_string();
    let result = format!("http://{}/outputs/{}/count/count.txt", world.address, world.newest());
    for reference in [
        format!("<wps:Reference mimeType='text/plain' xlink:href='{query}'/>"),
        chained("http://geoserver/wps", second),
        format!(
            "<wps:Reference mimeType='text/plain' xlink:href='{own}' method='POST'><wps:BodyReference xlink:href='data:text/xml,{data}'/></wps:Reference>"
        ),
        format!("<wps:Reference mimeType='text/plain' xlink:href='{result}'/>"),
    ] {
        let answer = world.post("/wps", &outer(&reference, "")).await;
        assert!(answer.xml(200).contains("<wps:ProcessSucceeded>"), "{reference}: {}", answer.text());
        assert_eq!(got(&world, world.newest()).await, "42", "{reference}");
    }
}

#[tokio::test]
async fn chains_below_the_public_address_need_no_network() {
    let config =
        HttpConfig { public_url: Some("https://maps.example.org/gis".into()), ..HttpConfig::default() };
    let world = world(config, at_once).await;
    let body = inner("test:Everything");
    let answer = world.post("/wps", &outer(&chained("https://maps.example.org/gis/wps", &body), "")).await;
    assert!(answer.xml(200).contains("<wps:ProcessSucceeded>"), "{}", answer.text());
    for elsewhere in ["https://maps.example.org/gisx/wps", "https://maps.example.org:1/gis/wps"] {
        let answer = world.post("/wps", &outer(&chained(elsewhere, &body), "")).await;
        assert!(answer.exception(400, "InvalidParameterValue", "doc").contains("[references] allow"));
    }
}

#[tokio::test]
async fn what_goes_wrong_inside_is_told_outside_and_nothing_is_accepted() {
    let world = world(HttpConfig::default(), at_once).await;
    let unknown = world.post("/wps", &outer(&chained("http://geoserver/wps", &inner("no:Such")), "")).await;
    assert!(unknown.exception(400, "InvalidParameterValue", "doc").contains("no:Such"));
    let broken = world.post("/wps", &outer(&chained("http://geoserver/wps", "hello"), "")).await;
    broken.exception(400, "InvalidParameterValue", "doc");
    let foreign = world.post("/wps", &outer(&chained("http://geoserver/wfs", "<GetFeature/>"), "")).await;
    assert!(foreign.exception(400, "InvalidParameterValue", "doc").contains("[references] rewrite"));
    assert!(world.accepted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn chains_are_bounded_in_depth_and_number() {
    let world = world(HttpConfig::default(), at_once).await;
    let nested = |depth: usize| {
        (0..depth).fold(inner("test:Everything"), |body, _| {
            outer(&chained("http://geoserver/wps", &body), RAW_COUNT)
        })
    };
    let deep = world.post("/wps", &nested(8)).await;
    assert_eq!((deep.status, deep.text()), (200, "42"));
    let too_deep = world.post("/wps", &nested(9)).await;
    assert!(too_deep.exception(400, "InvalidParameterValue", "doc").contains("8 levels"));

    // Every level asks twice for the next one.
    let before = world.accepted.lock().unwrap().len();
    let twice = |body: String| {
        let input = |id: &str| {
            let reference = chained("http://geoserver/wps", &body).replace("text/plain", "");
            format!("<wps:Input><ows:Identifier>{id}</ows:Identifier>{reference}</wps:Input>")
        };
        format!(
            "<wps:Execute service='WPS' version='1.0.0' {NAMES}><ows:Identifier>test:Everything</ows:Identifier><wps:DataInputs>{}{}\
             </wps:DataInputs>{RAW_COUNT}</wps:Execute>",
            input("doc"),
            input("image")
        )
    };
    let bomb = (0..7).fold(inner("test:Everything"), |body, _| twice(body));
    let answer = world.post("/wps", &bomb).await;
    assert!(answer.xml(400).contains("more than 100"), "{}", answer.text());
    let ran = world.accepted.lock().unwrap().len() - before;
    assert!(ran <= 100, "{ran} jobs");
}

#[tokio::test]
async fn lineage_repeats_inputs_that_went_through_the_shared_folder() {
    let config = HttpConfig { max_inline_bytes: 100_000, ..HttpConfig::default() };
    let world = world(config, never).await;
    let form = "<wps:ResponseForm><wps:ResponseDocument storeExecuteResponse='true' status='true' lineage='true'/></wps:ResponseForm>";
    let run = async |text: &str| {
        let data =
            format!("<wps:Data><wps:ComplexData mimeType='text/plain'>{text}</wps:ComplexData></wps:Data>");
        let answer = world.post("/wps", &outer(&data, form)).await;
        answer.xml(200);
        world.results.discard_inputs(world.newest()).await;
        world.get(&answer.link("statusLocation", &world)).await
    };
    let large = "0123456789".repeat(5000);
    let status = run(&large).await;
    assert!(status.xml(200).contains(&format!("<wps:ComplexData mimeType=\"text/plain\">{large}<")));
    // What is too large to stand in the document is linked.
    let huge = "0123456789".repeat(50_000);
    let status = run(&huge).await;
    assert!(!status.xml(200).contains(&large));
    let path = format!("/inputs/{}/0", world.newest());
    assert!(status.text().contains(&format!("http://{}{path}\"", world.address)), "{}", status.text());
    assert_eq!(world.get(&path).await.text(), huge);
    world.get(&path.replace("/0", "/1")).await.exception(404, "NoApplicableCode", "");
    // Nobody asked to repeat the inputs of this one.
    let plain = form.replace("lineage='true'", "");
    let data =
        format!("<wps:Data><wps:ComplexData mimeType='text/plain'>{large}</wps:ComplexData></wps:Data>");
    world.post("/wps", &outer(&data, &plain)).await.xml(200);
    world.get(&format!("/inputs/{}/0", world.newest())).await.exception(404, "NoApplicableCode", "");
}

#[tokio::test]
async fn lineage_repeats_references_without_their_credentials() {
    let world = world(HttpConfig::default(), never).await;
    let form = "<wps:ResponseForm><wps:ResponseDocument storeExecuteResponse='true' lineage='true'/></wps:ResponseForm>";
    let headers = "<wps:Header key='Accept' value='text/plain'/><wps:Header key='Authorization' value='Basic c2VjcmV0'/>";
    let body = "<wps:GetCapabilities xmlns:wps='http://www.opengis.net/wps/1.0.0' service='WPS'/>";
    let reference =
        chained("http://geoserver/wps", body).replace("<wps:Body>", &format!("{headers}<wps:Body>"));
    let answer = world.post("/wps", &outer(&reference, form)).await;
    let text = answer.xml(200);
    assert!(text.contains("<wps:Reference xlink:href=\"http://geoserver/wps\" method=\"POST\""), "{text}");
    assert!(text.contains("key=\"Accept\"") && text.contains("<wps:GetCapabilities "), "{text}");
    assert!(!text.contains("c2VjcmV0"), "{text}");
}

#[tokio::test]
async fn a_reference_says_how_its_data_is_encoded() {
    let world = world(HttpConfig::default(), at_once).await;
    let reference = |data: &str, encoding: &str| {
        format!(
            "<wps:Reference xlink:href='data:,{data}' mimeType='text/plain' encoding='{encoding}' schema='urn:s'/>"
        )
    };
    let lineage = "<wps:ResponseForm><wps:ResponseDocument lineage='true'/></wps:ResponseForm>";
    let answer = world.post("/wps", &outer(&reference("aGVs%0AbG8=", "base64"), lineage)).await;
    assert!(answer.xml(200).contains(" encoding=\"base64\" schema=\"urn:s\"/>"), "{}", answer.text());
    assert_eq!(got(&world, world.newest()).await, "hello");
    world.post("/wps", &outer(&reference("aGVsbG8=", "UTF-8"), "")).await.xml(200);
    assert_eq!(got(&world, world.newest()).await, "aGVsbG8=");
    for (data, encoding, why) in [("a%2Cb", "base64", "is not base64"), ("x", "gzip", "gzip")] {
        let refused = world.post("/wps", &outer(&reference(data, encoding), "")).await;
        assert!(refused.exception(400, "InvalidParameterValue", "doc").contains(why), "{}", refused.text());
    }
}

#[tokio::test]
async fn a_bounding_box_may_come_by_reference() {
    let extent = BoundingBox { crs: Some("EPSG:4326".into()), lower: vec![1.0, 2.0], upper: vec![3.0, 4.0] };
    let result = extent.clone();
    let world = world(HttpConfig::default(), move |_| {
        Some(done(vec![Output::new("extent", Value::BoundingBox(result.clone()))]))
    })
    .await;
    world
        .get("/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&RawDataOutput=extent")
        .await;
    let stored = format!("http://{}/outputs/{}/extent/extent.xml", world.address, world.newest());
    let corners = "%3Co:LowerCorner%3E1%202%3C/o:LowerCorner%3E%3Co:UpperCorner%3E3%204%3C/o:UpperCorner%3E";
    let document = |name: &str, version: &str| {
        format!("data:text/xml,%3Co:{name}%20xmlns:o='http://www.opengis.net/ows/{version}'%20crs='EPSG:4326'%3E{corners}%3C/o:{name}%3E")
            .replace('\'', "&apos;")
    };
    let run = "http://geoserver/wps?service=WPS&amp;version=1.0.0&amp;request=Execute&amp;identifier=test:Everything&amp;RawDataOutput=extent";
    for href in [
        document("BoundingBox", "1.1"),
        document("BoundingBox", "2.0"),
        document("WGS84BoundingBox", "1.1"),
        "data:,1,2,3,4,EPSG:4326%0A".to_owned(),
        stored.clone(),
        format!("{stored}?version=2.0.0"),
        run.to_owned(),
    ] {
        let input = format!(
            "<wps:Input><ows:Identifier>bbox</ows:Identifier><wps:Reference xlink:href='{href}'/></wps:Input>"
        );
        let first = format!(
            "<wps:Execute service='WPS' version='1.0.0' {NAMES}><ows:Identifier>test:Everything</ows:Identifier>\
             <wps:DataInputs>{input}</wps:DataInputs><wps:ResponseForm><wps:ResponseDocument lineage='true'/></wps:ResponseForm></wps:Execute>"
        );
        let second = format!(
            "<w:Execute service='WPS' version='2.0.0' xmlns:w='http://www.opengis.net/wps/2.0' xmlns:o='http://www.opengis.net/ows/2.0' \
             xmlns:xlink='http://www.w3.org/1999/xlink'><o:Identifier>test:Everything</o:Identifier>\
             <w:Input id='bbox'><w:Reference xlink:href='{href}'/></w:Input></w:Execute>"
        );
        for execute in [first, second] {
            world.post("/wps", &execute).await.xml(200);
            let job = world.store.load(world.newest()).await.unwrap().unwrap();
            assert_eq!(job.inputs[0].value.resolved(), &Value::BoundingBox(extent.clone()), "{href}");
        }
    }
    let path = stored.strip_prefix(&format!("http://{}", world.address)).unwrap();
    for (query, namespace) in [("", "ows/1.1"), ("?version=2.0.0", "ows/2.0")] {
        let document = world.get(&format!("{path}{query}")).await;
        assert!(document.text().contains(namespace), "{}", document.text());
    }
    let jobs = world.accepted.lock().unwrap().len();
    for (href, why) in [
        ("data:,1,2,3", "no bounding box"),
        ("data:text/xml,%3Ca/%3E", "no bounding box, but `a`"),
        ("data:;base64,//79", "fetched is no text"),
        ("data:text/xml,%3CBoundingBox%3E", "not closed"),
    ] {
        let get = format!(
            "/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&DataInputs=bbox=@href={}",
            percent_encoding::utf8_percent_encode(href, percent_encoding::NON_ALPHANUMERIC)
        );
        let text = world.get(&get).await;
        assert!(text.exception(400, "InvalidParameterValue", "bbox").contains(why), "{}", text.text());
        assert_eq!(text.text().matches("input `bbox`").count(), 1, "{}", text.text());
    }
    assert_eq!(world.accepted.lock().unwrap().len(), jobs);
}
