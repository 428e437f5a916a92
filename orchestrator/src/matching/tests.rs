//! Requests against descriptions: what fits, what is filled in, what is refused and who is blamed.

use wps_remote_protocol::{
    BoundingBox, BoundingBoxData, ComplexData, Content, Input, InputDescription, Occurs, OutputDescription,
};

use super::*;
use crate::engine::job::OutputRequest;

fn literal(kind: LiteralType, allowed: AllowedValues) -> DataType {
    DataType::Literal(LiteralData { kind, uom: None, allowed, default: None })
}

fn complex(formats: &[&str]) -> DataType {
    DataType::Complex(ComplexData {
        formats: formats.iter().map(|f| Format::new(f)).collect(),
        max_bytes: None,
    })
}

fn input(id: &str, min: u32, max: Option<u32>, data: DataType) -> InputDescription {
    InputDescription { id: id.into(), title: None, summary: String::new(), occurs: Occurs { min, max }, data }
}

fn output(id: &str, data: DataType) -> OutputDescription {
    OutputDescription {
        id: id.into(),
        title: None,
        summary: String::new(),
        data,
        optional: false,
        publication: None,
    }
}

fn process(inputs: Vec<InputDescription>, outputs: Vec<OutputDescription>) -> ProcessDescription {
    ProcessDescription {
        id: "a:b".parse().unwrap(),
        alias: None,
        title: String::new(),
        summary: String::new(),
        version: "1.0.0".into(),
        keywords: vec![],
        inputs,
        outputs,
        weight: 0.0,
        repeatable: false,
        max_running_time_s: 0,
        roles: Vec::new(),
    }
}

fn given(id: &str, value: Value) -> Input {
    Input { id: id.into(), value }
}

fn text(media_type: &str) -> Value {
    Value::Complex { content: Content::Text("150".into()), media_type: media_type.into(), schema: None }
}

/// One value for the one input `x` of this type: the value as it comes out.
fn fit_one(data: DataType, value: Value) -> Result<Value, Mismatch> {
    let described = process(vec![input("x", 1, Some(1), data)], vec![]);
    let mut inputs = vec![given("x", value)];
    fit(&described, &mut inputs, &Form::default())?;
    Ok(inputs.remove(0).value)
}

#[test]
fn media_types_are_compared_without_blanks_and_capitals() {
    assert!(same_media_type("text/xml; subtype=gml/3.1.1", "TEXT/xml;subtype=gml/3.1.1"));
    assert!(!same_media_type("text/xml", "text/plain"));
}

#[test]
fn literals_are_of_their_type() {
    use LiteralType::*;
    let cases: [(LiteralType, &[&str], &[&str]); 10] = [
        (String, &["", "any\nthing", " x "], &[]),
        (Char, &["a", "ü", " "], &["", "ab"]),
        (Uri, &["http://h/a?b", "urn:x"], &["", "a b"]),
        (Boolean, &["true", "FALSE", "1", "0", " true "], &["", "yes", "2"]),
        (Byte, &["-128", "127", " 5 "], &["128", "1.5", "x", ""]),
        (Short, &["-32768", "32767"], &["32768"]),
        (Integer, &["2147483647", "-2147483648", "+7"], &["2147483648", "1e3", "0x10"]),
        (Long, &["9223372036854775807"], &["9223372036854775808"]),
        (Double, &["1", "-1.5e-3", "nan", "INF"], &["", "1,5", "abc"]),
        (DateTime, &["2026-11-22T04:00:00Z", "whatever the agent takes"], &[]),
    ];
    for (kind, good, bad) in cases {
        for value in good {
            let fitted = fit_one(literal(kind, AllowedValues::Any), Value::literal(*value));
            assert_eq!(
                fitted,
                Ok(Value::literal(*value)),
                "{kind:?} {value:?}: and the value stays as it came"
            );
        }
        for value in bad {
            let refused = fit_one(literal(kind, AllowedValues::Any), Value::literal(*value)).unwrap_err();
            assert!(
                matches!(&refused, Mismatch::BadValue { input, .. } if input == "x"),
                "{kind:?} {value:?}"
            );
        }
    }
}

#[test]
fn allowed_values_and_ranges_hold() {
    let one_of = |kind, values: &[&str]| {
        literal(kind, AllowedValues::Values(values.iter().map(|&v| v.to_owned()).collect()))
    };
    let fits = |data: &DataType, value: &str| fit_one(data.clone(), Value::literal(value)).is_ok();
    let words = one_of(LiteralType::String, &["fast", "slow"]);
    assert!(fits(&words, "fast") && !fits(&words, "Fast") && !fits(&words, "fast "));
    let numbers = one_of(LiteralType::Double, &["1", "2.50"]);
    assert!(fits(&numbers, "1.0") && fits(&numbers, " 2.5 ") && !fits(&numbers, "3"));
    let range = |min: Option<&str>, max: Option<&str>| {
        let end = |text: Option<&str>| text.map(str::to_owned);
        literal(LiteralType::Double, AllowedValues::Range { min: end(min), max: end(max) })
    };
    let closed = range(Some("0"), Some("10"));
    assert!(fits(&closed, "0") && fits(&closed, "10") && !fits(&closed, "-0.1") && !fits(&closed, "10.01"));
    assert!(fits(&range(None, Some("10")), "-1e9") && !fits(&range(None, Some("10")), "11"));
    assert!(fits(&range(Some("5"), None), "1e9") && !fits(&range(Some("5"), None), "4"));
    let message = fit_one(closed, Value::literal("11")).unwrap_err().to_string();
    assert_eq!(message, "input `x`: 11 is outside of the range 0 to 10");
}

#[test]
fn units_must_be_the_declared_ones() {
    let data = DataType::Literal(LiteralData {
        kind: LiteralType::Double,
        uom: Some("m".into()),
        allowed: AllowedValues::Any,
        default: None,
    });
    let value = |uom: Option<&str>| Value::Literal { text: "1".into(), uom: uom.map(str::to_owned) };
    assert!(fit_one(data.clone(), value(Some("m"))).is_ok());
    assert!(fit_one(data.clone(), value(None)).is_ok());
    assert!(fit_one(data, value(Some("ft"))).is_err());
}

#[test]
fn formats_are_declared_ones_or_plain_bytes() {
    let data = || complex(&["text/xml; subtype=gml/3.1.1", "image/tiff"]);
    let media_type = |given: &str| match fit_one(data(), text(given)) {
        Ok(Value::Complex { media_type, .. }) => Ok(media_type),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused),
    };
    assert_eq!(media_type("").as_deref(), Ok("text/xml; subtype=gml/3.1.1"), "the default is filled in");
    assert_eq!(media_type("IMAGE/TIFF").as_deref(), Ok("IMAGE/TIFF"));
    assert_eq!(media_type("application/octet-stream").as_deref(), Ok("application/octet-stream"));
    assert!(matches!(media_type("text/plain"), Err(Mismatch::InputFormat { .. })));
    let reference = Value::reference("http://h/", "");
    let Ok(Value::Reference { media_type, .. }) = fit_one(data(), reference) else { panic!() };
    assert_eq!(media_type, "text/xml; subtype=gml/3.1.1");
    let odd = Value::reference("http://h/", "text/plain");
    assert!(matches!(fit_one(data(), odd), Err(Mismatch::InputFormat { .. })));
}

#[test]
fn a_value_in_the_wrong_wrapping_is_taken_where_its_meaning_is_plain() {
    let number = || literal(LiteralType::Integer, AllowedValues::Any);
    assert_eq!(fit_one(number(), text("text/plain")), Ok(Value::literal("150")));
    let Ok(Value::Complex { content, media_type, .. }) =
        fit_one(complex(&["text/csv"]), Value::literal("a;b"))
    else {
        panic!()
    };
    assert_eq!((content, media_type.as_str()), (Content::Text("a;b".into()), "text/csv"));
    let bytes = Value::Complex { content: Content::Bytes(vec![1]), media_type: String::new(), schema: None };
    assert!(fit_one(number(), bytes).is_err());
    let area = || Value::BoundingBox(BoundingBox { crs: None, lower: vec![0.0, 0.0], upper: vec![1.0, 1.0] });
    let boxes = || DataType::BoundingBox(BoundingBoxData { crs: vec!["EPSG:4326".into()] });
    assert_eq!(fit_one(boxes(), area()), Ok(area()));
    for (data, value) in
        [(number(), area()), (complex(&["text/csv"]), area()), (boxes(), Value::literal("1,2,3,4"))]
    {
        assert!(matches!(fit_one(data, value), Err(Mismatch::BadValue { .. })));
    }
}

#[test]
fn inputs_are_counted() {
    let word = || literal(LiteralType::String, AllowedValues::Any);
    let defaulted = DataType::Literal(LiteralData {
        kind: LiteralType::String,
        uom: None,
        allowed: AllowedValues::Any,
        default: Some("x".into()),
    });
    let described = process(
        vec![
            input("two", 2, Some(3), word()),
            input("any", 0, None, word()),
            input("defaulted", 1, Some(1), defaulted),
        ],
        vec![],
    );
    let check = |ids: &[&str]| {
        let mut inputs = ids.iter().map(|id| given(id, Value::literal("v"))).collect();
        fit(&described, &mut inputs, &Form::default())
    };
    assert_eq!(check(&["two", "any", "two"]), Ok(()));
    assert_eq!(check(&["two", "two", "two", "any", "any", "any", "any"]), Ok(()));
    assert_eq!(check(&["two"]), Err(Mismatch::MissingInput { input: "two".into(), min: 2 }));
    assert_eq!(check(&["two"; 4]), Err(Mismatch::TooManyValues { input: "two".into(), given: 4, max: 3 }));
    assert_eq!(
        check(&["two", "two", "defaulted", "defaulted"]),
        Err(Mismatch::TooManyValues { input: "defaulted".into(), given: 2, max: 1 })
    );
    let unknown = check(&["two", "Two"]).unwrap_err();
    assert_eq!(unknown.to_string(), "process `a:b` has no input `Two`; it has: two, any, defaulted");
    let long = check(&["x".repeat(5000).as_str()]).unwrap_err();
    assert!(long.to_string().len() < 400, "what a client writes is clipped");
}

#[test]
fn outputs_exist_and_have_the_wanted_format() {
    let described = process(
        vec![],
        vec![
            output("zip", complex(&["application/zip"])),
            output("n", literal(LiteralType::Long, AllowedValues::Any)),
        ],
    );
    let want = |id: &str, media_type: Option<&str>| OutputRequest {
        id: id.into(),
        media_type: media_type.map(str::to_owned),
        ..OutputRequest::default()
    };
    let check = |raw: bool, outputs: Vec<OutputRequest>| {
        fit(&described, &mut vec![], &Form { raw, outputs, ..Form::default() })
    };
    assert_eq!(check(false, vec![]), Ok(()));
    assert_eq!(
        check(false, vec![want("zip", Some("APPLICATION/zip")), want("n", Some("text/plain"))]),
        Ok(())
    );
    assert_eq!(check(true, vec![want("zip", Some("application/octet-stream"))]), Ok(()));
    assert!(matches!(check(false, vec![want("zap", None)]), Err(Mismatch::UnknownOutput { .. })));
    assert!(matches!(check(false, vec![want("zip", Some("image/png"))]), Err(Mismatch::OutputFormat { .. })));
    assert_eq!(check(true, vec![]), Err(Mismatch::RawNeedsOne("zip, n".into())));
    assert_eq!(
        check(true, vec![want("zip", None), want("n", None)]),
        Err(Mismatch::RawNeedsOne("zip, n".into()))
    );
}

#[test]
fn an_output_is_delivered_in_what_it_has_or_not_at_all() {
    let zip = output("zip", complex(&["application/zip"]));
    let number = output("n", literal(LiteralType::Long, AllowedValues::Any));
    let area = output("x", DataType::BoundingBox(BoundingBoxData { crs: vec!["EPSG:4326".into()] }));
    for (output, media_type, encoding) in [
        (&zip, "application/zip", "base64"),
        (&zip, "application/octet-stream", "BASE64"),
        (&number, "text/plain; charset=utf-8", "UTF-8"),
        (&number, "text/xml", "utf-8"),
        (&number, "application/octet-stream", "utf8"),
        (&area, "text/xml", "UTF-8"),
    ] {
        assert_eq!(fit_output(output, Some(media_type), Some(encoding)), Ok(()), "{media_type} {encoding}");
        assert_eq!(fit_output(output, None, None), Ok(()));
    }
    for (output, media_type) in [(&number, "image/png"), (&number, "application/json"), (&area, "text/plain")]
    {
        let refused = fit_output(output, Some(media_type), None);
        assert!(matches!(refused, Err(Mismatch::OutputFormat { .. })), "{media_type}");
    }
    for (output, encoding) in [(&zip, "gzip"), (&number, "base64"), (&area, "base64")] {
        let refused = fit_output(output, None, Some(encoding));
        assert!(matches!(refused, Err(Mismatch::OutputEncoding { .. })), "{encoding}");
    }
}

#[test]
fn the_format_of_an_output_is_the_wanted_one_else_the_first() {
    let formats = [Format::new("text/xml"), Format::new("text/csv")];
    let chosen = |wanted| output_format(&formats, wanted).map(|f| f.media_type);
    assert_eq!(chosen(Some("TEXT/CSV")).as_deref(), Some("text/csv"));
    assert_eq!(chosen(Some("image/png")).as_deref(), Some("text/xml"));
    assert_eq!(chosen(None).as_deref(), Some("text/xml"));
    assert_eq!(output_format(&[], None), None);
}
