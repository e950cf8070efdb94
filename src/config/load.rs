use std::fs;
use std::path::Path;

use super::reader::Reader;
use super::yaml::{self, Checked};
use super::{Config, Problem, parse, raw};

impl Config {
    /// Reads the file and every file that it names. On failure every problem is in the answer.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|error| vec![yaml::unreadable(&name, &error)])?;
        let Checked { value, document, problems } = yaml::check::<raw::Root>(&name, &text);
        let Some(root) = value else { return Err(problems) };
        let mut reader = Reader::new(path, document, problems);
        let config = parse::root(&mut reader, root);
        match config {
            Some(config) if reader.problems.is_empty() => {
                Ok(Self { files: reader.files, ..config })
            }
            _ => {
                let mut problems = reader.problems;
                debug_assert!(!problems.is_empty(), "what cannot be parsed is reported");
                problems.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
                problems.dedup();
                Err(problems)
            }
        }
    }
}
