//! What each fuzz target does with its bytes: reads them as the programs would, and checks what must hold for every input,
//! not only that nothing panics. Compiled into the fuzz targets, and into a test that replays the corpora without a fuzzer.

mod files;
mod old;
mod requests;
mod texts;

pub use files::{descriptor, ini, interpolation};
pub use old::{legacy_body, pickle};
pub use requests::{kvp, wps1, wps2};
pub use texts::{json_path, list, rule, stdout, template};

/// What a target does with its bytes; panics if something does not hold.
pub type Target = fn(&[u8]);

/// Every target, by the name of its program and its corpus.
pub const TARGETS: [(&str, Target); 13] = [
    ("ini", ini),
    ("interpolation", interpolation),
    ("list", list),
    ("template", template),
    ("json_path", json_path),
    ("rule", rule),
    ("stdout", stdout),
    ("descriptor", descriptor),
    ("kvp", kvp),
    ("wps1", wps1),
    ("wps2", wps2),
    ("pickle", pickle),
    ("legacy_body", legacy_body),
];

/// The bytes as text, cut in two at the first line break: most readers take two texts.
fn two_texts(data: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(data).ok()?;
    Some(text.split_once('\n').unwrap_or((text, "")))
}
