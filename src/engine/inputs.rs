use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand;

use super::compose::foreign_policy;
use super::restart::RestartOnly;
use super::state;
use crate::authz::trust::KeySet;
use crate::clients::{self, LoadContext, LoadedClients};
use crate::config::{
    BrokenConfig, ClaimForm, Config, KeySource, LastGood, Lookup, Outline, TrustedIssuer,
};
use crate::domain::{ClientBook, Clock, DIGEST_KEY_LEN, Problem, TenantDigester, Withdrawals};
use crate::keys::{self, FileKeys, LoadedKeys, Need, SigningKeys};
use crate::sources::{Glance, Look, Reading, Source, SourceStatus};
use crate::yaml::locate;

/// Everything that a process runs with and that is in files, each part from a source of its
/// own.
pub struct Inputs {
    path: PathBuf,
    process_key: ProcessKey,
    clock: Arc<dyn Clock>,
    last_good: LastGood,
    /// The config on disk, where nothing of it could be taken.
    broken: Option<BrokenConfig>,
    config: Source<Config>,
    /// The secrets and certificates that are part of the config, by their fields.
    named: BTreeMap<String, Source<()>>,
    restart_only: RestartOnly,
    digester: Arc<TenantDigester>,
    /// What the private keys are for. Whether a process mints is decided at its start.
    need: Need,
    keys: Source<SigningKeys>,
    clients: Source<ClientBook>,
    /// What the registry was read against.
    clients_context: Option<ClientsContext>,
    /// The keys of other issuers that are in files, by issuer.
    issuer_keys: BTreeMap<String, IssuerFile>,
    /// Whether there is a state is decided at the start.
    withdrawals: Option<Arc<Withdrawals>>,
    /// What replaces a registry file where the clients are in the state alone.
    no_file: Option<Arc<ClientBook>>,
}

/// The secret behind tenant digests where the config names none: tokens hold plain codes then, and
/// digests never leave the process.
struct ProcessKey([u8; DIGEST_KEY_LEN]);

impl ProcessKey {
    fn generate() -> anyhow::Result<Self> {
        let mut key = [0; DIGEST_KEY_LEN];
        rand::fill(&mut key).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Self(key))
    }
}

struct IssuerFile {
    config: TrustedIssuer,
    keys: Source<KeySet>,
}

/// What of the config the registry depends on.
#[derive(Clone)]
struct ClientsContext {
    file: PathBuf,
    digester: Arc<TenantDigester>,
    issuer: String,
    tenant_claim: String,
    api_names: Vec<String>,
    static_lookup: bool,
}

/// Why nothing can be run with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is wrong with the files, and what is allowed in them, but rarely meant.
    #[error("the config has {} problem(s)", .problems.len())]
    #[expect(missing_docs, reason = "said in the line above")]
    Config { problems: Vec<Problem>, warnings: Vec<Problem> },
    /// What failed apart from them, such as the database.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<Vec<Problem>> for StartError {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Config { problems, warnings: Vec::new() }
    }
}

impl Inputs {
    /// Reads the config and every file that it names. At the start anything wrong is an error, and
    /// every problem is told at once.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let process_key = ProcessKey::generate()?;
        let digester = Arc::new(TenantDigester::new(&process_key.0, None));
        let mut inputs = Self {
            path: path.to_owned(),
            process_key,
            clock,
            last_good: LastGood::default(),
            broken: None,
            config: Source::default(),
            named: BTreeMap::new(),
            restart_only: RestartOnly::default(),
            digester,
            need: Need::VerifyOnly,
            keys: Source::default(),
            clients: Source::default(),
            clients_context: None,
            issuer_keys: BTreeMap::new(),
            withdrawals: None,
            no_file: None,
        };
        inputs.read(Look::Everything);
        let mut problems = inputs.problems();
        let warnings = match inputs.broken.take() {
            Some(BrokenConfig { warnings, outline, .. }) => {
                problems.extend(outline.into_iter().flat_map(|outline| beside(*outline, path)));
                warnings
            }
            None => inputs.config().warnings.clone(),
        };
        match problems.is_empty() {
            true => Ok(inputs),
            false => Err(StartError::Config { problems, warnings }),
        }
    }

    /// Looks at every source, and says whether any was read.
    pub fn read(&mut self, look: Look) -> bool {
        let glance = Glance { look, at: self.clock.now() };
        let starting = self.config.value().is_none();
        let mut any = self.read_config(glance);
        let Some(config) = self.config.value().cloned() else { return any };
        if starting {
            self.restart_only = RestartOnly::of(&config);
            self.withdrawals = config.state.as_ref().map(state::withdrawals);
            self.no_file = config.state.as_ref().map(|_| Arc::default());
            self.need = if config.listen.token.is_some() { Need::Sign } else { Need::VerifyOnly };
        }
        any |= self.read_keys(&config, glance, starting);
        any |= self.read_clients(&config, glance);
        any |= self.read_issuer_keys(&config, glance);
        any
    }

    fn read_config(&mut self, glance: Glance) -> bool {
        let path = self.path.as_path();
        let before = self.config.value().cloned();
        let files = before.as_ref().map_or_else(|| vec![path.to_owned()], |c| c.files.clone());
        let (last_good, broken, mut named) = (&mut self.last_good, &mut self.broken, None);
        *broken = None;
        let read = self.config.read("config", files.iter().map(PathBuf::as_path), glance, |_| {
            match last_good.read(path) {
                Ok(reading) => {
                    named = Some(reading.named);
                    Reading::new(reading.config, reading.problems)
                }
                Err(found) => Reading::Broken(broken.insert(found).problems.clone()),
            }
        });
        if let Some(named) = named {
            let mut old = std::mem::take(&mut self.named);
            for (field, problems) in named {
                let mut source = old.remove(&field).unwrap_or_default();
                let reading = match problems.is_empty() {
                    true => Reading::Good(()),
                    false => Reading::Broken(problems),
                };
                source.take(reading, glance.at);
                self.named.insert(field, source);
            }
        } else if !read {
            self.named.values_mut().for_each(|source| source.confirm(glance.at));
        }
        if let Some(config) = self.config.value().filter(|_| read) {
            let form =
                |config: &Config| config.issuer.as_ref().map(|i| i.tenant_claim.form.clone());
            if before.is_none_or(|before| form(&before) != form(config)) {
                self.digester = Arc::new(digester(config, &self.process_key));
            }
        }
        read
    }

    fn read_keys(&mut self, config: &Config, glance: Glance, starting: bool) -> bool {
        let Some(dir) = config.issuer.as_ref().and_then(|issuer| issuer.keys.folder()) else {
            let had = self.keys.value().is_some();
            self.keys = Source::default();
            return had;
        };
        let (dir, need, path) = (dir.as_path(), self.need, self.path.as_path());
        let in_config = |problems| locate::place(problems, path);
        self.keys.read("issuer.signing_keys", [dir], glance, |before| {
            let loaded = if starting {
                let keys = SigningKeys::load(dir, need);
                keys.map(|keys| LoadedKeys { keys, problems: Vec::new() })
            } else {
                before.unwrap_or(&SigningKeys::default()).reload(dir, need)
            };
            match loaded {
                Ok(LoadedKeys { keys, problems }) => {
                    if keys.is_empty() {
                        let dir = dir.display();
                        tracing::warn!(%dir, "no signing key is live: our own tokens are refused, \
                                              and none is minted");
                    }
                    Reading::new(keys, in_config(problems))
                }
                Err(problems) => Reading::Broken(in_config(problems)),
            }
        })
    }

    fn read_clients(&mut self, config: &Config, glance: Glance) -> bool {
        let Some(context) = ClientsContext::of(config, &self.digester) else {
            let had = self.clients.value().is_some();
            self.clients = Source::default();
            self.clients_context = None;
            return had;
        };
        let same = self.clients_context.as_ref().is_some_and(|before| before.same(&context));
        if !same {
            self.clients.forget_seen();
        }
        let file = context.file.as_path();
        let read = self.clients.read("clients.file", [file], glance, |_| {
            let api_names: Vec<&str> = context.api_names.iter().map(String::as_str).collect();
            match clients::load(file, &context.borrow(&api_names)) {
                Ok(LoadedClients { book, problems }) => {
                    Reading::new(book, in_registry(problems, file))
                }
                Err(problems) => Reading::Broken(in_registry(problems, file)),
            }
        });
        self.clients_context = Some(context);
        read
    }

    fn read_issuer_keys(&mut self, config: &Config, glance: Glance) -> bool {
        let mut old = std::mem::take(&mut self.issuer_keys);
        let before = old.len();
        let mut any = false;
        for (index, issuer) in config.issuers.iter().enumerate() {
            let KeySource::File(file) = &issuer.keys else { continue };
            // Keys of another file, or for other algorithms, are others.
            let same = old.remove(&issuer.issuer).filter(|entry| entry.config == *issuer);
            let mut keys = same.map(|entry| entry.keys).unwrap_or_default();
            let field = format!("issuers[{index}].jwks_file");
            any |= keys.read(&field, [file.as_path()], glance, |_| {
                let in_config = |problem| locate::place(vec![problem], &self.path);
                match keys::read_jwks_file(
                    &field,
                    file,
                    &keys::WantedKeys::of(&foreign_policy(issuer)),
                ) {
                    Ok(FileKeys { set, skipped, problem }) => {
                        keys::tell_skipped(&issuer.issuer, &skipped, set.len());
                        Reading::new(set, problem.map(in_config).unwrap_or_default())
                    }
                    Err(problem) => Reading::Broken(in_config(problem)),
                }
            });
            let entry = IssuerFile { config: issuer.clone(), keys };
            self.issuer_keys.insert(issuer.issuer.clone(), entry);
        }
        any || self.issuer_keys.len() != before
    }

    /// The config in force.
    pub fn config(&self) -> Arc<Config> {
        let config = self.config.value().cloned();
        config.unwrap_or_else(|| unreachable!("`open` gives none without a config"))
    }

    /// What tenants are recognised by.
    pub fn digester(&self) -> &Arc<TenantDigester> {
        &self.digester
    }

    /// `None`: there is no state.
    pub(super) fn withdrawals(&self) -> Option<&Arc<Withdrawals>> {
        self.withdrawals.as_ref()
    }

    /// `None`: there is no registry.
    pub fn clients(&self) -> Option<&Arc<ClientBook>> {
        self.clients.value().or(self.no_file.as_ref())
    }

    /// `None`: none were ever read, or we are not an issuer.
    pub fn signing_keys(&self) -> Option<&Arc<SigningKeys>> {
        self.keys.value()
    }

    pub(super) fn issuer_keys(&self, issuer: &str) -> Option<&Arc<KeySet>> {
        self.issuer_keys.get(issuer)?.keys.value()
    }

    /// Whether this process mints, as long as it runs.
    pub(super) fn mints(&self) -> bool {
        self.need == Need::Sign
    }

    /// Everything that is wrong on disk.
    pub fn problems(&self) -> Vec<Problem> {
        let named = self.named.values().flat_map(Source::problems);
        let issuers = self.issuer_keys.values().flat_map(|entry| entry.keys.problems());
        let all = self.config.problems().iter().chain(named).chain(self.keys.problems());
        all.chain(self.clients.problems()).chain(issuers).cloned().collect()
    }

    /// How each source is.
    pub fn statuses(&self) -> Vec<SourceStatus> {
        let config = self.config();
        let mut all = vec![self.config.status("config")];
        all.extend(self.named.iter().map(|(field, source)| source.status(field)));
        if config.issuer.as_ref().is_some_and(|issuer| issuer.keys.folder().is_some()) {
            all.push(self.keys.status("signing_keys"));
        }
        if config.clients_file.is_some() {
            all.push(self.clients.status("clients"));
        }
        let issuers = self.issuer_keys.iter();
        all.extend(issuers.map(|(issuer, entry)| entry.keys.status(issuer_source(issuer))));
        all
    }

    /// The settings that were changed and take effect at the next start only.
    pub fn waiting_for_restart(&self) -> Vec<&'static str> {
        self.restart_only.changed(&self.config())
    }

    /// Every file, and every folder of files, that this is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let config = self.config();
        let key_files = config.issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeySource::File(path) => Some(path),
            KeySource::Url(_) | KeySource::Discovery(_) => None,
        });
        let signing_keys = config.issuer.as_ref().and_then(|issuer| issuer.keys.folder());
        let further = config.clients_file.iter().chain(signing_keys).chain(key_files);
        config.files.iter().chain(further).cloned().collect()
    }
}

/// The name of the source of another issuer's keys.
pub(super) fn issuer_source(issuer: &str) -> String {
    format!("issuer_keys:{issuer}")
}

impl ClientsContext {
    fn of(config: &Config, digester: &Arc<TenantDigester>) -> Option<Self> {
        let issuer = config.issuer.as_ref();
        Some(Self {
            file: config.clients_file.clone()?,
            digester: Arc::clone(digester),
            issuer: issuer.map_or(String::new(), |issuer| issuer.url.clone()),
            tenant_claim: issuer.map_or(String::new(), |i| i.tenant_claim.name.clone()),
            api_names: config.apis.iter().map(|api| api.name.clone()).collect(),
            static_lookup: config.tenants.lookup == Lookup::Static,
        })
    }

    fn borrow<'a>(&'a self, api_names: &'a [&'a str]) -> LoadContext<'a> {
        LoadContext {
            digester: &self.digester,
            issuer: &self.issuer,
            tenant_claim: &self.tenant_claim,
            api_names,
            static_lookup: self.static_lookup,
        }
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.digester, &other.digester)
            && self.file == other.file
            && self.issuer == other.issuer
            && self.tenant_claim == other.tenant_claim
            && self.api_names == other.api_names
            && self.static_lookup == other.static_lookup
    }
}

/// What is wrong with the registry and the keys that a broken config names.
fn beside(outline: Outline, config: &Path) -> Vec<Problem> {
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
    let clients = outline.clients_file.map(|file| {
        let problems = match clients::load(&file, &context) {
            Ok(registry) => registry.problems,
            Err(problems) => problems,
        };
        in_registry(problems, &file)
    });
    keys.into_iter().chain(clients).flatten().collect()
}

fn digester(config: &Config, process_key: &ProcessKey) -> TenantDigester {
    let digester = match config.issuer.as_ref().map(|issuer| &issuer.tenant_claim.form) {
        Some(ClaimForm::Digest { key, previous }) => TenantDigester::new(key, previous.as_deref()),
        Some(ClaimForm::Plain) | None => TenantDigester::new(&process_key.0, None),
    };
    match &config.state {
        Some(state) => digester.with_references(state::tenant_refs(state)),
        None => digester,
    }
}

/// Tells the lines of the registry. Where no field of it is to blame, the one that names it is.
fn in_registry(problems: Vec<Problem>, file: &Path) -> Vec<Problem> {
    let name = file.display().to_string();
    let named = |problem: Problem| {
        if problem.field != name {
            return problem;
        }
        let message = format!("{name} {}", problem.message);
        Problem { field: "clients.file".to_owned(), message }
    };
    locate::place(problems, file).into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::domain::SystemClock;

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
        let opened = Inputs::open(&config, Arc::new(SystemClock));
        let Err(StartError::Config { problems, .. }) = opened else {
            panic!("the config is broken")
        };
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for (field, place) in [
            ("issuer.token_ttl: ", "/tenantgate.yaml:2:41)"),
            ("clients[0].status: ", "/clients.yaml:2:3)"),
            ("clients[0].apis[1]: ", "/clients.yaml:3:15)"),
            ("issuer.signing_keys: ", "/tenantgate.yaml:2:58)"),
        ] {
            let found = lines.iter().filter(|line| line.starts_with(field));
            let found: Vec<_> = found.filter(|line| line.ends_with(place)).collect();
            assert_eq!(found.len(), 1, "{field} {place}: {lines:#?}");
        }
        assert_eq!(lines.len(), 4, "{lines:#?}");
    }

    #[test]
    fn what_is_hardly_meant_is_told_beside_a_broken_registry_too() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("clients.yaml", "clients: 5");
        write(
            "tenantgate.yaml",
            "clients: {file: clients.yaml}\n\
             issuers: [{issuer: 'https://a', audience: a, tenant_claim: /t, jwks_url: \
             'https://a/keys'}]\n\
             apis: [{name: oda, shadow: true, routes: [{path: '/{tenant}', methods: [GET]}]}]\n",
        );
        let opened = Inputs::open(&folder.path().join("tenantgate.yaml"), Arc::new(SystemClock));
        let Err(StartError::Config { problems, warnings }) = opened else {
            panic!("the registry is broken")
        };
        assert!(problems.iter().all(|problem| problem.field == "clients"), "{problems:?}");
        let fields: Vec<_> = warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, ["apis[0].shadow"]);
    }
}
