use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::yaml::{self, Checked};
use super::{Config, Problem, parse, raw};
use crate::domain::Secret;

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
        LastGood::default().read(path).map(|reading| reading.config)
    }
}

/// What the config and the files that it names said when they were last good, so that one broken file
/// does not hold back what another says.
#[derive(Default)]
pub struct LastGood {
    config: Option<String>,
    named: HashMap<PathBuf, Secret>,
}

/// A config to run with, and what is wrong on disk all the same.
pub struct Reading {
    pub config: Config,
    /// Why the file itself is not what `config` was read from.
    pub problems: Vec<Problem>,
    /// The secrets and certificates that it names, by their fields. With problems: it was taken as it last was.
    pub named: Vec<(String, Vec<Problem>)>,
}

/// One reading of one text.
struct Parsed {
    config: Option<Config>,
    problems: Vec<Problem>,
    named: HashMap<PathBuf, Secret>,
    fields: Vec<(String, PathBuf)>,
}

impl LastGood {
    /// An error where nothing was good before, or what was good cannot be read any more.
    pub fn read(&mut self, path: &Path) -> Result<Reading, Vec<Problem>> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| vec![yaml::unreadable(&name, &error)]);
        let problems = match text.and_then(|text| self.parse_and_keep(path, text)) {
            Ok(reading) => return Ok(reading),
            Err(problems) => problems,
        };
        let Some(text) = self.config.clone() else { return Err(problems) };
        match self.parse_and_keep(path, text) {
            Ok(reading) => Ok(Reading { problems, ..reading }),
            Err(_) => Err(problems),
        }
    }

    fn parse_and_keep(&mut self, path: &Path, text: String) -> Result<Reading, Vec<Problem>> {
        let fresh = parse_text(path, &text, &HashMap::new());
        if let Some(config) = fresh.config {
            self.config = Some(text);
            self.named = fresh.named;
            let named = fresh.fields.into_iter().map(|(field, _)| (field, Vec::new())).collect();
            return Ok(Reading { config, problems: Vec::new(), named });
        }
        let blamed = self.blamed(&fresh);
        let problems = fresh.problems;
        if blamed.is_empty() {
            return Err(problems);
        }
        let paths: HashSet<&PathBuf> = blamed.iter().map(|(_, path)| path).collect();
        let old = self.named.iter().filter(|(path, _)| paths.contains(path));
        let old = old.map(|(path, text)| (path.clone(), text.clone())).collect();
        let again = parse_text(path, &text, &old);
        let Some(config) = again.config else { return Err(problems) };
        let own = |field: &String| {
            let own = problems.iter().filter(|problem| problem.field == *field);
            own.cloned().collect()
        };
        let named = again.fields.iter().map(|(field, _)| (field.clone(), own(field))).collect();
        self.config = Some(text);
        self.named = again.named;
        Ok(Reading { config, problems: Vec::new(), named })
    }

    /// The files that are told to be wrong and that were good before.
    fn blamed(&self, parsed: &Parsed) -> Vec<(String, PathBuf)> {
        let told = |field: &String| parsed.problems.iter().any(|problem| problem.field == *field);
        let fields = parsed.fields.iter();
        fields
            .filter(|(field, path)| told(field) && self.named.contains_key(path))
            .cloned()
            .collect()
    }
}

fn parse_text(path: &Path, text: &str, instead: &HashMap<PathBuf, Secret>) -> Parsed {
    let name = path.display().to_string();
    let Checked { value, document, problems } = yaml::check::<raw::Root>(&name, text);
    let mut reader = Reader::new(path, document, problems, instead);
    let config = value.and_then(|root| parse::root(&mut reader, root));
    let config = config.filter(|_| reader.problems.is_empty());
    let mut problems = reader.problems;
    debug_assert!(config.is_some() || !problems.is_empty(), "what cannot be parsed is reported");
    problems.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
    problems.dedup();
    let files = std::iter::once(path.to_owned());
    let files = files.chain(reader.files.iter().map(|(_, path)| path.clone())).collect();
    Parsed {
        config: config.map(|config| Config { files, ..config }),
        problems,
        named: reader.texts,
        fields: reader.files,
    }
}
