use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::reader::Reader;
use super::{Config, parse, raw};
use crate::domain::{Problem, Secret};
use crate::yaml::schema::{self, PathStep};
use crate::yaml::{self, Checked, locate};

/// Why nothing of a config can be taken, and what can be told of it all the same.
#[derive(Debug)]
pub struct BrokenConfig {
    /// With their places in the file.
    pub problems: Vec<Problem>,
    /// What is allowed, but rarely meant.
    pub warnings: Vec<Problem>,
    /// `None`: the file is not there, or not YAML.
    pub outline: Option<Box<Outline>>,
}

/// What even a broken config says of the files beside it, so that their problems can be shown in
/// the same run.
#[derive(Debug)]
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
    fn of(root: &raw::Root, file: &Path) -> Self {
        let folder = file.parent().unwrap_or(Path::new(""));
        let in_folder = |file: &raw::FileText| folder.join(&file.0);
        let (listen, clients) = (root.listen.as_ref().value(), root.clients.as_ref().value());
        let issuer = root.issuer.as_ref().value();
        let tenant_claim = issuer.and_then(|issuer| issuer.tenant_claim.as_ref().value());
        let tenant_claim = tenant_claim.and_then(|claim| claim.name.as_ref().value());
        let apis = root.apis.as_ref().value().into_iter().flatten();
        let apis = apis.filter_map(|api| api.as_ref().value());
        Self {
            clients_file: clients.and_then(|clients| clients.file.as_ref().value()).map(in_folder),
            signing_keys: issuer
                .and_then(|issuer| issuer.signing_keys.as_ref().value())
                .map(in_folder),
            mints: listen.is_some_and(|listen| listen.token.is_given()),
            tenant_claim: tenant_claim.cloned().unwrap_or_default(),
            api_names: apis.filter_map(|api| api.name.clone().value()).collect(),
        }
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
                let limits = root.limits.value().unwrap_or_default();
                Ok(Self { token_cache_bytes: limits.token_cache_bytes.value().unwrap_or_default() })
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
        read.map(|reading| reading.config).map_err(|broken| broken.problems)
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
pub struct ConfigReading {
    /// The config itself.
    pub config: Config,
    /// Why the file itself is not what `config` was read from, with the places in it.
    pub problems: Vec<Problem>,
    /// The secrets and certificates that it names, by their fields. With problems: it was taken as
    /// it last was.
    pub named: Vec<(String, Vec<Problem>)>,
}

/// One reading of one text.
struct Parsed {
    config: Option<Config>,
    outline: Option<Box<Outline>>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    named: HashMap<PathBuf, Secret>,
    fields: Vec<(String, PathBuf)>,
}

impl LastGood {
    /// An error where nothing was good before, or what was good cannot be read any more.
    pub fn read(&mut self, path: &Path) -> Result<ConfigReading, BrokenConfig> {
        let text = fs::read_to_string(path).map_err(|error| {
            let problems = vec![yaml::unreadable(&path.display().to_string(), &error)];
            BrokenConfig { problems, warnings: Vec::new(), outline: None }
        });
        let broken = match text.and_then(|text| self.parse_and_keep(path, text)) {
            Ok(reading) => return Ok(reading),
            Err(broken) => broken,
        };
        let Some(text) = self.config.clone() else { return Err(broken) };
        match self.parse_and_keep(path, text) {
            Ok(reading) => Ok(ConfigReading { problems: broken.problems, ..reading }),
            Err(_) => Err(broken),
        }
    }

    fn parse_and_keep(&mut self, path: &Path, text: String) -> Result<ConfigReading, BrokenConfig> {
        let fresh = parse_text(path, &text, &HashMap::new());
        if let Some(config) = fresh.config {
            self.config = Some(text);
            self.named = fresh.named;
            let named = fresh.fields.into_iter().map(|(field, _)| (field, Vec::new())).collect();
            return Ok(ConfigReading { config, problems: Vec::new(), named });
        }
        let blamed = self.blamed(&fresh);
        let Parsed { problems, warnings, outline, .. } = fresh;
        let broken = BrokenConfig { problems, warnings, outline };
        if blamed.is_empty() {
            return Err(broken);
        }
        let paths: HashSet<&PathBuf> = blamed.iter().map(|(_, path)| path).collect();
        let old = self.named.iter().filter(|(path, _)| paths.contains(path));
        let old = old.map(|(path, text)| (path.clone(), text.clone())).collect();
        let again = parse_text(path, &text, &old);
        let Some(config) = again.config else { return Err(broken) };
        let own = |field: &String| {
            let own = broken.problems.iter().filter(|problem| problem.field == *field);
            own.cloned().collect()
        };
        let named = again.fields.iter().map(|(field, _)| (field.clone(), own(field))).collect();
        self.config = Some(text);
        self.named = again.named;
        Ok(ConfigReading { config, problems: Vec::new(), named })
    }

    /// The files that are told to be wrong and that were good before.
    fn blamed(&self, parsed: &Parsed) -> Vec<(String, PathBuf)> {
        let has_problem =
            |field: &String| parsed.problems.iter().any(|problem| problem.field == *field);
        let fields = parsed.fields.iter();
        fields
            .filter(|(field, path)| has_problem(field) && self.named.contains_key(path))
            .cloned()
            .collect()
    }
}

fn parse_text(path: &Path, text: &str, instead: &HashMap<PathBuf, Secret>) -> Parsed {
    let name = path.display().to_string();
    let Checked { value, document, problems } = yaml::check::<raw::Root>(&name, text);
    let with_variables = variables(&document);
    let mut reader = Reader::new(path, document, problems, instead);
    let outline = value.as_ref().map(|root| Box::new(Outline::of(root, path)));
    let config = value.and_then(|root| parse::root(&mut reader, root));
    let config = config.filter(|_| reader.problems.is_empty());
    call_out(&mut reader, &with_variables);
    let problems = locate::place_in(ordered(reader.problems), &name, text);
    debug_assert!(config.is_some() || !problems.is_empty(), "what cannot be parsed is reported");
    let warnings = locate::place_in(ordered(reader.warnings), &name, text);
    let files = std::iter::once(path.to_owned());
    let files = files.chain(reader.files.iter().map(|(_, path)| path.clone())).collect();
    Parsed {
        config: config.map(|config| Config { files, warnings: warnings.clone(), ..config }),
        outline,
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
