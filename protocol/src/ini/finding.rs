//! What is wrong or unwise in a file, and where: the one form in which errors and warnings of all configuration files
//! are told. Knows nothing of any particular file.

use std::fmt;

/// One remark about a file: what, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable code, for programs and for looking it up: `unknown-key`, `duplicate-section`.
    pub code: &'static str,
    /// Whether the file cannot be used because of it.
    pub fatal: bool,
    /// Line in the file, from 1; 0 = the file as a whole.
    pub line: usize,
    /// Section, if it is about one.
    pub section: Option<Box<str>>,
    /// Key, if it is about one.
    pub key: Option<Box<str>>,
    /// What is the matter; lower case, no trailing dot.
    pub why: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// A reason why the file cannot be used.
    pub fn error(code: &'static str, why: impl Into<String>) -> Self {
        Self { code, fatal: true, line: 0, section: None, key: None, why: why.into(), remedy: None }
    }

    /// Something that deviates from a literal reading, or is unwise.
    pub fn warning(code: &'static str, why: impl Into<String>) -> Self {
        Self { fatal: false, ..Self::error(code, why) }
    }

    /// Sets the line.
    #[must_use]
    pub fn at(mut self, line: usize) -> Self {
        self.line = line;
        self
    }

    /// Sets the section.
    #[must_use]
    pub fn section(mut self, name: &str) -> Self {
        self.section = Some(name.into());
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, name: &str) -> Self {
        self.key = Some(name.into());
        self
    }

    /// Sets the remedy.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}

impl fmt::Display for Finding {
    /// `line 12: [Input1] type: why; remedy`, without the parts that are not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match (&self.section, &self.key) {
            (Some(section), Some(key)) => write!(f, "[{section}] {key}: ")?,
            (Some(section), None) => write!(f, "[{section}]: ")?,
            (None, Some(key)) => write!(f, "{key}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.why)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

/// A file that cannot be used: all reasons at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IniError {
    /// Which file.
    pub file: String,
    /// Why; never empty, in the order of lines.
    pub findings: Vec<Finding>,
}

impl fmt::Display for IniError {
    /// One line for each reason, each beginning with the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}, {finding}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for IniError {}

/// The known name that a mistyped one most likely stands for: at most a third of its letters may differ.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(64).flat_map(char::to_lowercase).collect();
    let allowed = (name.len() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance, where swapping two neighbours counts once.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = last;
        last = row;
    }
    last[b.len()]
}
