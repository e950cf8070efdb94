use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand;

use crate::authz::trust::KeySet;
use crate::clients::{self, LoadContext};
use crate::config::{ClaimForm, Config, KeySource, Lookup, Problem};
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
        let config = Config::load(path)?;
        let mut problems = Vec::new();
        let mut keep = |found: Vec<Problem>| problems.extend(found);
        let digester = Arc::new(digester(&config, process_key));
        let keys = read_keys(&config).map_err(&mut keep).ok().flatten();
        let clients = read_clients(&config, &digester).map_err(&mut keep).ok().flatten();
        let file_keys = read_file_keys(&config).map_err(&mut keep).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { config, digester, clients, keys, file_keys })
    }
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
    clients::load(file, &context).map(|book| Some(Arc::new(book)))
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
