//! Prints the table of a program's configuration as a commented sample file. Knows nothing of values that are in use.

use std::fmt::Write;

use super::{Kind, Schema};

impl Schema {
    /// A file that changes nothing: every key with its documentation, commented out where there is a default.
    pub fn sample(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            for line in part.doc.lines() {
                let _ = writeln!(text, "# {line}");
            }
            // A family has no section of its own: the whole block is an example.
            let family = if part.family().is_some() { "#" } else { "" };
            let _ = writeln!(text, "{family}[{}]", part.name);
            for key in part.keys {
                let unit = if key.unit.is_empty() { String::new() } else { format!(", in {}", key.unit) };
                let _ = writeln!(text, "\n# {} ({}{unit})", key.doc, describe(key.kind));
                let mark = if key.required { "" } else { "#" };
                let _ = writeln!(text, "{mark}{} = {}", key.name, key.default.unwrap_or(""));
                if let Kind::Secret(stem) = key.kind {
                    let _ = writeln!(text, "#{stem}_file = \n#{stem}_env = ");
                }
            }
        }
        text
    }
}

fn describe(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Integer { min, max } if max == i64::MAX => format!("whole number from {min}"),
        Kind::Integer { min, max } => format!("whole number, {min} to {max}"),
        Kind::Number { min, max } if max == f64::MAX => format!("number from {min}"),
        Kind::Number { min, max } => format!("number, {min} to {max}"),
        Kind::Boolean => "true or false".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::List => "list: a, b".to_owned(),
        Kind::Choice(words) => words.join(" | "),
        Kind::Secret(_) => "secret: write it here, or name a file or an environment variable".to_owned(),
    }
}
