use std::path::Path;

use super::store::problem;
use crate::domain::Problem;

/// What is in the key directory and is not part of a key, although it may be taken for one: a PEM
/// without its record, or a file of another kind. Nothing where the directory cannot be read.
pub fn ignored_files(dir: &Path) -> Vec<Problem> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let ignored = files.iter().filter(|path| path.is_file() && !is_used(path));
    let cure = "make keys with `tenantgate keys generate`, and keep other files elsewhere";
    ignored.map(|path| problem(path, &"is ignored, it has no KID.json beside it", cure)).collect()
}

fn is_used(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => true,
        Some("pem") => path.with_extension("json").is_file(),
        _ => hidden,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_pem_alone_and_files_of_another_kind_are_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.json", "a.pem", "b.pem", "c.key", "d", ".lock"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("..data")).unwrap();
        let told: Vec<String> = ignored_files(folder.path())
            .iter()
            .map(|problem| problem.message.split(": ").next().unwrap().to_owned())
            .collect();
        let path = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(told, [path("b.pem"), path("c.key"), path("d")]);
        assert!(ignored_files(&folder.path().join("nowhere")).is_empty());
    }
}
