use std::fs;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::yaml::{self, Checked};
use super::{Config, Problem, parse, raw};

/// What even a broken config says of the files beside it, so that their problems can be shown in
/// the same run.
pub struct Outline {
    pub clients_file: Option<PathBuf>,
    pub signing_keys: Option<PathBuf>,
    pub mints: bool,
    pub tenant_claim: String,
    pub api_names: Vec<String>,
}

impl Outline {
    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let root = yaml::check::<raw::Root>("", &text).value?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let apis = root.apis.into_iter().flatten().flatten();
        let issuer = root.issuer.unwrap_or_default();
        Some(Self {
            clients_file: root.clients.and_then(|clients| Some(folder.join(clients.file?.0))),
            signing_keys: issuer.signing_keys.map(|keys| folder.join(keys.0)),
            mints: root.listen.is_some_and(|listen| listen.token.is_some()),
            tenant_claim: issuer.tenant_claim.and_then(|claim| claim.name).unwrap_or_default(),
            api_names: apis.filter_map(|api| api.name).collect(),
        })
    }
}

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
