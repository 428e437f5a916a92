//! Paths as texts: made absolute and rid of `.` and `..` without looking at the disk.

use std::path::{Component, Path, PathBuf};

/// The path itself if it is absolute, else below `base`; `.` and `..` are resolved. Links are not: whoever opens the file
/// must look at those.
pub fn absolute(path: &Path, base: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                // `..` of the root is the root.
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Whether a text is a relative path that cannot leave its directory.
pub fn is_inner(text: &str) -> bool {
    !text.is_empty() && Path::new(text).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_as_texts() {
        let check = |path: &str, expected: &str| {
            assert_eq!(absolute(Path::new(path), Path::new("/base/dir")), Path::new(expected), "{path}");
        };
        check("a/./b", "/base/dir/a/b");
        check("../x", "/base/x");
        check("/a/../../b", "/b");
        check("", "/base/dir");
        assert!(is_inner("a/b.txt"));
        assert!(!is_inner("../a") && !is_inner("/a") && !is_inner("") && !is_inner("a/../../b"));
    }
}
