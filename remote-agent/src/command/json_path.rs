//! Places in a JSON document, written as Python subscripts: `['plan']['limits'][1]`. Parsed, never evaluated.

use std::fmt;

use serde_json::Value;

/// A place in a JSON document; empty = the document itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    /// Negative counts from the end.
    Index(i64),
}

impl JsonPath {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if steps.len() == 64 {
                return Err("has more than 64 steps".to_owned());
            }
            let inner = rest.strip_prefix('[').ok_or_else(|| wrong(rest))?.trim_start();
            let (step, after) = match inner.chars().next() {
                Some(quote @ ('\'' | '"')) => member(&inner[1..], quote).ok_or_else(|| wrong(rest))?,
                _ => {
                    let end = inner.find(']').ok_or_else(|| wrong(rest))?;
                    let number = inner[..end].trim().parse().map_err(|_| wrong(rest))?;
                    (Step::Index(number), &inner[end..])
                }
            };
            rest = after.trim_start().strip_prefix(']').ok_or_else(|| wrong(rest))?.trim_start();
            steps.push(step);
        }
        Ok(Self(steps))
    }

    /// The value at this place.
    pub fn find<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Member(name) => value.as_object()?.get(name),
            Step::Index(index) => {
                let array = value.as_array()?;
                array.get(position(*index, array.len())?)
            }
        })
    }

    /// Puts a value at this place. The last member may be new; a missing parent is made only if asked for.
    pub fn set(&self, document: &mut Value, new: Value, create_parents: bool) -> Result<(), String> {
        let mut place = document;
        let last = self.0.len();
        for (depth, step) in self.0.iter().enumerate() {
            if create_parents && place.is_null() && matches!(step, Step::Member(_)) {
                *place = Value::Object(serde_json::Map::new());
            }
            place = match step {
                Step::Member(name) => {
                    let object =
                        place.as_object_mut().ok_or_else(|| format!("{step} is looked for in no object"))?;
                    if !object.contains_key(name) && depth + 1 < last && !create_parents {
                        return Err(format!("there is no member {step}"));
                    }
                    object.entry(name.clone()).or_insert(Value::Null)
                }
                Step::Index(index) => {
                    let array =
                        place.as_array_mut().ok_or_else(|| format!("{step} is looked for in no array"))?;
                    let length = array.len();
                    position(*index, length)
                        .and_then(|at| array.get_mut(at))
                        .ok_or_else(|| format!("there is no element {step} among {length}"))?
                }
            };
        }
        *place = new;
        Ok(())
    }
}

fn wrong(rest: &str) -> String {
    let start: String = rest.chars().take(30).collect();
    format!("`{start}` is not a subscript such as ['name'] or [0]")
}

/// A quoted name up to its closing quote, and what follows the quote.
fn member(text: &str, quote: char) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next()?.1 {
                escaped @ ('\\' | '\'' | '"') => name.push(escaped),
                _ => return None,
            },
            c if c == quote => return Some((Step::Member(name), &text[at + 1..])),
            c => name.push(c),
        }
    }
    None
}

fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if index < 0 { length + index } else { index };
    usize::try_from(at).ok()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) => {
                write!(f, "['{}']", name.replace('\\', r"\\").replace('\'', r"\'"))
            }
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "{step}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subscripts_find_and_set() {
        let mut document = json!({"plan": {"limits": [0.0, 12.0], "it's": 1}});
        let find = |path: &str, document: &Value| JsonPath::parse(path).unwrap().find(document).cloned();
        assert_eq!(find("['plan']['limits'][1]", &document), Some(json!(12.0)));
        assert_eq!(find(" [\"plan\"] ['limits'][-2]", &document), Some(json!(0.0)));
        assert_eq!(find(r"['plan']['it\'s']", &document), Some(json!(1)));
        assert_eq!(find("['plan']['limits'][-3]", &document), None);
        let set = |path: &str, document: &mut Value, parents| {
            JsonPath::parse(path).unwrap().set(document, json!("x"), parents)
        };
        for path in [r"['it\'s'][-1]", r#"["a\\"]["\"b\""]"#] {
            let read = JsonPath::parse(path).unwrap();
            assert_eq!(JsonPath::parse(&read.to_string()), Ok(read), "what is shown can be written");
        }
        set("['plan']['limits'][1]", &mut document, false).unwrap();
        set("['plan']['new']", &mut document, false).unwrap();
        assert_eq!(document["plan"], json!({"limits": [0.0, "x"], "it's": 1, "new": "x"}));
        assert!(set("['a']['b']", &mut document, false).unwrap_err().contains("['a']"));
        set("['a']['b']", &mut document, true).unwrap();
        assert_eq!(document["a"], json!({"b": "x"}));
        assert!(set("['plan']['limits'][9]", &mut document, true).is_err());
    }

    #[test]
    fn nothing_is_evaluated() {
        for bad in ["['a'", "[a]", "['a'].b", "['a']+1", "[1+1]", "['a\\x']", "__import__('os')", "[]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
