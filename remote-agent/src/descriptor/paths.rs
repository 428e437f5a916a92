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

/// Whether a path leads below one of these folders when links are followed as far as there is something on the disk. A link
/// that leads nowhere leads outside: whoever wrote through it would make what it names.
pub fn leads_inside<'r>(path: &Path, roots: impl IntoIterator<Item = &'r Path>) -> bool {
    let Some(path) = resolved(path) else { return false };
    roots.into_iter().any(|root| resolved(root).is_some_and(|root| path.starts_with(root)))
}

/// The path with links followed; what does not exist yet stays as it is. `None` = a link leads nowhere, or in a circle.
fn resolved(path: &Path) -> Option<PathBuf> {
    for there in path.ancestors() {
        if let Ok(real) = there.canonicalize() {
            let rest = path.strip_prefix(there).ok()?;
            // Joining nothing would add a separator, which makes a folder of a file.
            return Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
        if there.symlink_metadata().is_ok() {
            return None;
        }
    }
    Some(path.to_owned())
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

    #[cfg(unix)]
    #[test]
    fn links_are_followed_before_a_path_is_believed() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("in/deep")).unwrap();
        std::fs::create_dir(at("out")).unwrap();
        for (to, name) in
            [("out", "in/away"), ("in/deep", "in/near"), ("nowhere", "in/lost"), ("in", "front")]
        {
            symlink(at(to), at(name)).unwrap();
        }
        let check = |path: &str, inside: bool| {
            assert_eq!(leads_inside(&at(path), [at("in").as_path()]), inside, "{path}");
        };
        for inside in ["in", "in/new", "in/deep/new/file", "in/near/file", "front/file"] {
            check(inside, true);
        }
        for outside in ["out", "in/away", "in/away/file", "in/lost", "in/lost/file", "other/in"] {
            check(outside, false);
        }
        assert!(leads_inside(&at("new/root/file"), [at("new/root").as_path()]), "a root that is made later");
    }
}
