//! Sets one key of an INI text in place: only the lines of that key change, everything else stays byte for byte.

/// The text with `key` of `section` set to `value`. Keys are compared without regard to case, sections exactly; both are
/// added if they are missing. The value must hold no line break.
pub(super) fn set(text: &str, section: &str, key: &str, value: &str) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut inside = false;
    let mut end_of_section = None;
    let mut found: Option<(usize, usize)> = None;
    let mut index = 0;
    while index < lines.len() {
        let line = lines[index].trim_end_matches(['\r', '\n']);
        let header = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name);
        if let Some(name) = header {
            inside = name == section;
            if inside {
                end_of_section = Some(index + 1);
            }
        } else if inside && !line.trim().is_empty() {
            end_of_section = Some(index + 1);
            if is_key(line, key) {
                let mut next = index + 1;
                while next < lines.len() && is_continuation(lines[next]) {
                    next += 1;
                }
                // The last of several counts for a reader; so it is the one to change.
                found = Some((index, next));
                end_of_section = Some(next);
                index = next;
                continue;
            }
        }
        index += 1;
    }
    let line = |name: &str| format!("{name} = {value}{newline}");
    let mut out = String::with_capacity(text.len() + value.len() + 16);
    match (found, end_of_section) {
        (Some((start, end)), _) => {
            let written = lines[start].split(['=', ':']).next().unwrap_or(key).trim_end();
            out.extend(lines[..start].iter().copied());
            out.push_str(&line(written));
            out.extend(lines[end..].iter().copied());
        }
        (None, Some(at)) => {
            out.extend(lines[..at].iter().copied());
            if !out.ends_with('\n') {
                out.push_str(newline);
            }
            out.push_str(&line(key));
            out.extend(lines[at..].iter().copied());
        }
        (None, None) => {
            out.push_str(text);
            if !out.is_empty() && !out.ends_with('\n') {
                out.push_str(newline);
            }
            out.push_str(&format!("[{section}]{newline}{}", line(key)));
        }
    }
    out
}

fn is_key(line: &str, key: &str) -> bool {
    !line.starts_with([' ', '\t', '#', ';'])
        && line.find(['=', ':']).is_some_and(|at| line[..at].trim_end().eq_ignore_ascii_case(key))
}

fn is_continuation(line: &str) -> bool {
    line.starts_with([' ', '\t']) && !line.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::set;

    #[test]
    fn only_the_key_changes() {
        let check = |text: &str, section: &str, key: &str, expected: &str| {
            assert_eq!(set(text, section, key, "new"), expected, "{text:?}");
        };
        check(
            "# c\n[a]\nKey : old ; x\n  more\nz=1\n\n[b]\nkey=2\n",
            "a",
            "key",
            "# c\n[a]\nKey = new\nz=1\n\n[b]\nkey=2\n",
        );
        check("[a]\nx=1\n\n[b]\n", "a", "key", "[a]\nx=1\nkey = new\n\n[b]\n");
        check("[a]\r\nx=1", "b", "key", "[a]\r\nx=1\r\n[b]\r\nkey = new\r\n");
        check("[a]", "a", "key", "[a]\nkey = new\n");
        check("", "a", "key", "[a]\nkey = new\n");
        check("[A]\nkey=1\n", "a", "key", "[A]\nkey=1\n[a]\nkey = new\n");
        check("[a]\nkey=1\nkey=2\n", "a", "key", "[a]\nkey=1\nkey = new\n");
        check("[DEFAULT]\nmonkey=1\n", "DEFAULT", "key", "[DEFAULT]\nmonkey=1\nkey = new\n");
    }
}
