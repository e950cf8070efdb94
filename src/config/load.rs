use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::reader::Reader;
use super::schema::{self, PathStep};
use super::yaml::{self, Checked};
use super::{Config, Problem, locate, parse, raw};
use crate::domain::Secret;

/// What even a broken config says of the files beside it, so that their problems can be shown in
/// the same run.
pub struct Outline {
    /// `None`: no registry in a file.
    pub clients_file: Option<PathBuf>,
    /// `None`: no private keys.
    pub signing_keys: Option<PathBuf>,
    /// Whether there is a token endpoint.
    pub mints: bool,
    /// The name of the tenant claim.
    pub tenant_claim: String,
    /// In the order of the file.
    pub api_names: Vec<String>,
}

impl Outline {
    /// `None`: the file is not there, or not YAML.
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

/// What somebody who is fed by a sidecar needs of the sidecar's config. No file that it names is
/// opened, so that no key or secret in them has to be readable.
pub struct FedConfig {
    /// For verified tokens.
    pub token_cache_bytes: u64,
}

impl FedConfig {
    /// An error where the file is missing or has another shape. Whether it makes sense is the
    /// sidecar's to say.
    pub fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| vec![yaml::unreadable(&name, &error)])?;
        let Checked { value, problems, .. } = yaml::check::<raw::Root>(&name, &text);
        match value {
            Some(root) if problems.is_empty() => {
                let limits = root.limits.unwrap_or_default();
                let bytes = limits.token_cache_bytes.or(raw::Limits::default().token_cache_bytes);
                Ok(Self { token_cache_bytes: bytes.unwrap_or_default() })
            }
            _ => Err(locate::place_in(ordered(problems), &name, &text)),
        }
    }
}

impl Config {
    /// Reads the file and every file that it names. On failure every problem is in the answer, with
    /// its place in the file.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let read = LastGood::default().read(path);
        read.map(|reading| reading.config).map_err(|problems| locate::place(problems, path))
    }

    /// What can be told of a file that is not in order beside its problems.
    pub fn warnings_of(path: &Path) -> Vec<Problem> {
        let text = fs::read_to_string(path).unwrap_or_default();
        parse_text(path, &text, &HashMap::new()).warnings
    }
}

/// What the config and the files that it names said when they were last good, so that one broken
/// file does not hold back what another says.
#[derive(Default)]
pub struct LastGood {
    config: Option<String>,
    named: HashMap<PathBuf, Secret>,
}

/// A config to run with, and what is wrong on disk all the same.
pub struct Reading {
    /// The config itself.
    pub config: Config,
    /// Why the file itself is not what `config` was read from.
    pub problems: Vec<Problem>,
    /// The secrets and certificates that it names, by their fields. With problems: it was taken as
    /// it last was.
    pub named: Vec<(String, Vec<Problem>)>,
}

/// One reading of one text.
struct Parsed {
    config: Option<Config>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
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
    let with_variables = variables(&document);
    let mut reader = Reader::new(path, document, problems, instead);
    let config = value.and_then(|root| parse::root(&mut reader, root));
    let config = config.filter(|_| reader.problems.is_empty());
    call_out(&mut reader, &with_variables);
    let problems = ordered(reader.problems);
    debug_assert!(config.is_some() || !problems.is_empty(), "what cannot be parsed is reported");
    let warnings = locate::place_in(ordered(reader.warnings), &name, text);
    let files = std::iter::once(path.to_owned());
    let files = files.chain(reader.files.iter().map(|(_, path)| path.clone())).collect();
    Parsed {
        config: config.map(|config| Config { files, warnings: warnings.clone(), ..config }),
        problems,
        warnings,
        named: reader.texts,
        fields: reader.files,
    }
}

fn ordered(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
    problems.dedup();
    problems
}

/// The fields whose value looks as if a variable of the environment should replace it.
fn variables(document: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &mut Vec<PathStep>, found: &mut Vec<String>) {
        match value {
            Value::String(text) => {
                let starts = text.match_indices("${").map(|(at, start)| &text[at + start.len()..]);
                let is_name = |c: char| c == '_' || c.is_ascii_alphabetic();
                if starts.into_iter().any(|name| name.starts_with(is_name) && name.contains('}')) {
                    found.push(schema::field(path));
                }
            }
            Value::Array(items) => items.iter().enumerate().for_each(|(index, inner)| {
                path.push(PathStep::Index(index));
                walk(inner, path, found);
                path.pop();
            }),
            Value::Object(object) => object.iter().for_each(|(key, inner)| {
                path.push(PathStep::Key(key.clone()));
                walk(inner, path, found);
                path.pop();
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut found = Vec::new();
    walk(document, &mut Vec::new(), &mut found);
    found
}

fn call_out(reader: &mut Reader, fields: &[String]) {
    for field in fields {
        let mut about = reader.problems.iter_mut().filter(|problem| problem.field == *field);
        match about.next() {
            Some(problem) => problem.message.push_str(" (variables, `${NAME}`, are not expanded)"),
            None => reader.warning(
                field,
                "has a variable, `${NAME}`, and these are not expanded",
                "write the value itself, or have a template engine write this file",
            ),
        }
    }
}
