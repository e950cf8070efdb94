use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand;

use crate::authz::trust::KeySet;
use crate::clients::{self, LoadContext};
use crate::config::{ClaimForm, Config, KeySource, Lookup, Outline, Problem, locate};
use crate::domain::{ClientBook, DIGEST_KEY_LEN, TenantDigester};
use crate::keys::{self, Need, SigningKeys};

/// Everything that the files say, read and checked together: what is here can run.
pub struct Loaded {
    pub config: Config,
    pub digester: Arc<TenantDigester>,
    pub clients: Option<Arc<ClientBook>>,
    pub keys: Option<Arc<SigningKeys>>,
    /// The keys of trusted issuers that stand in files.
    pub file_keys: HashMap<String, Arc<KeySet>>,
}

/// The secret behind tenant digests where the config names none: tokens hold plain codes then, and
/// digests never leave the process.
pub struct ProcessKey([u8; DIGEST_KEY_LEN]);

impl ProcessKey {
    pub fn generate() -> anyhow::Result<Self> {
        let mut key = [0; DIGEST_KEY_LEN];
        rand::fill(&mut key).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Self(key))
    }
}

impl Loaded {
    /// Reads the config and every file that it names, and reports every problem at once.
    pub fn read(path: &Path, process_key: &ProcessKey) -> Result<Self, Vec<Problem>> {
        let config = Config::load(path).map_err(|problems| {
            let mut problems = locate::place(problems, path);
            problems.extend(beside(path));
            problems
        })?;
        let mut problems = Vec::new();
        let mut keep = |found: Vec<Problem>| problems.extend(found);
        let in_config = |found: Vec<Problem>| locate::place(found, path);
        let digester = Arc::new(digester(&config, process_key));
        let keys = read_keys(&config).map_err(in_config).map_err(&mut keep).ok().flatten();
        let clients = read_clients(&config, &digester).map_err(&mut keep).ok().flatten();
        let file_keys =
            read_file_keys(&config).map_err(in_config).map_err(&mut keep).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { config, digester, clients, keys, file_keys })
    }
}

/// What is wrong with the registry and the keys that a broken config names.
fn beside(config: &Path) -> Vec<Problem> {
    let Some(outline) = Outline::read(config) else { return Vec::new() };
    let need = if outline.mints { Need::Sign } else { Need::VerifyOnly };
    let keys = outline.signing_keys.and_then(|dir| {
        let problems = SigningKeys::load(&dir, need).err()?;
        Some(locate::place(problems, config))
    });
    let api_names: Vec<&str> = outline.api_names.iter().map(String::as_str).collect();
    let context = LoadContext {
        // Nothing that is read here is used.
        digester: &TenantDigester::new(&[0; DIGEST_KEY_LEN], None),
        issuer: "",
        tenant_claim: &outline.tenant_claim,
        api_names: &api_names,
        static_lookup: false,
    };
    let clients = outline.clients_file.and_then(|file| {
        let problems = clients::load(&file, &context).err()?;
        Some(in_registry(problems, &file))
    });
    keys.into_iter().chain(clients).flatten().collect()
}

impl Loaded {
    /// Every file, and every folder of files, that this was read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let config = &self.config;
        let key_files = config.issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeySource::File(path) => Some(path),
            KeySource::Url(_) | KeySource::Discovery(_) => None,
        });
        let signing_keys = config.issuer.as_ref().map(|issuer| &issuer.signing_keys);
        let further = config.clients_file.iter().chain(signing_keys).chain(key_files);
        config.files.iter().chain(further).cloned().collect()
    }
}

fn digester(config: &Config, process_key: &ProcessKey) -> TenantDigester {
    match config.issuer.as_ref().map(|issuer| &issuer.tenant_claim.form) {
        Some(ClaimForm::Digest { key, previous }) => TenantDigester::new(key, previous.as_deref()),
        Some(ClaimForm::Plain) | None => TenantDigester::new(&process_key.0, None),
    }
}

fn read_keys(config: &Config) -> Result<Option<Arc<SigningKeys>>, Vec<Problem>> {
    let Some(issuer) = &config.issuer else { return Ok(None) };
    let need = if config.listen.token.is_some() { Need::Sign } else { Need::VerifyOnly };
    SigningKeys::load(&issuer.signing_keys, need).map(|keys| Some(Arc::new(keys)))
}

fn read_clients(
    config: &Config,
    digester: &TenantDigester,
) -> Result<Option<Arc<ClientBook>>, Vec<Problem>> {
    let Some(file) = &config.clients_file else { return Ok(None) };
    let api_names: Vec<&str> = config.apis.iter().map(|api| api.name.as_str()).collect();
    let issuer = config.issuer.as_ref();
    let context = LoadContext {
        digester,
        issuer: issuer.map_or("", |issuer| &issuer.url),
        tenant_claim: issuer.map_or("", |issuer| &issuer.tenant_claim.name),
        api_names: &api_names,
        static_lookup: config.tenants.lookup == Lookup::Static,
    };
    let book = clients::load(file, &context).map_err(|problems| in_registry(problems, file))?;
    Ok(Some(Arc::new(book)))
}

/// Tells the lines of the registry. Where no field of it is to blame, the one that names it is.
fn in_registry(problems: Vec<Problem>, file: &Path) -> Vec<Problem> {
    let shown = file.display().to_string();
    let named = |problem: Problem| {
        if problem.field != shown {
            return problem;
        }
        let message = format!("{shown} {}", problem.message);
        Problem { field: "clients.file".to_owned(), message }
    };
    locate::place(problems, file).into_iter().map(named).collect()
}

fn read_file_keys(config: &Config) -> Result<HashMap<String, Arc<KeySet>>, Vec<Problem>> {
    let mut sets = HashMap::new();
    let mut problems = Vec::new();
    for (index, issuer) in config.issuers.iter().enumerate() {
        let KeySource::File(path) = &issuer.keys else { continue };
        let field = format!("issuers[{index}].jwks_file");
        match keys::read_jwks_file(&field, path, &issuer.algorithms) {
            Ok((set, _unused)) => {
                sets.insert(issuer.issuer.clone(), Arc::new(set));
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(sets) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_broken_config_does_not_hide_the_problems_of_the_files_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("clients.yaml", "clients: [{id: app,\n  status: aproved,\n  apis: [oda, other]}]");
        write(
            "tenantgate.yaml",
            "listen: {token: '127.0.0.1:0'}\n\
             issuer: {url: 'https://a', audience: a, token_ttl: soon, signing_keys: keys, \
             tenant_claim: {form: plain}}\n\
             clients: {file: clients.yaml}\n\
             apis: [{name: oda, routes: [{path: '/{tenant}', methods: [GET]}]}]\n",
        );
        let config = folder.path().join("tenantgate.yaml");
        let problems = Loaded::read(&config, &ProcessKey::generate().unwrap()).err().unwrap();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for (field, place) in [
            ("issuer.token_ttl: ", "/tenantgate.yaml:2)"),
            ("clients[0].status: ", "/clients.yaml:2)"),
            ("clients[0].apis[1]: ", "/clients.yaml:3)"),
            ("issuer.signing_keys: ", "/tenantgate.yaml:2)"),
        ] {
            let found = lines.iter().filter(|line| line.starts_with(field));
            let found: Vec<_> = found.filter(|line| line.ends_with(place)).collect();
            assert_eq!(found.len(), 1, "{field} {place}: {lines:#?}");
        }
        assert_eq!(lines.len(), 4, "{lines:#?}");
    }
}
