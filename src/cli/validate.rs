use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::app::{Loaded, ProcessKey};
use crate::clients::{self, LoadContext};
use crate::config::{Config, Outline, Problem};
use crate::domain::{DIGEST_KEY_LEN, TenantDigester};
use crate::keys::{Need, SigningKeys};

/// Read the config, the client registry and every file they name, and show every problem.
#[derive(Args)]
pub struct ValidateArgs {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    match validate(&args.config, &ProcessKey::generate()?) {
        Ok(loaded) => {
            let clients = loaded.clients.as_ref().map_or(0, |book| book.len());
            let apis = loaded.config.apis.len();
            println!("{}: valid ({apis} APIs, {clients} clients)", args.config.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            for problem in problems {
                println!("{problem}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn validate(config: &Path, process_key: &ProcessKey) -> Result<Loaded, Vec<Problem>> {
    if let Err(mut problems) = Config::load(config) {
        problems.extend(beside(config));
        return Err(problems);
    }
    Loaded::read(config, process_key)
}

/// What is wrong with the registry and the keys that a broken config names.
fn beside(config: &Path) -> Vec<Problem> {
    let Some(outline) = Outline::read(config) else { return Vec::new() };
    let need = if outline.mints { Need::Sign } else { Need::VerifyOnly };
    let keys = outline.signing_keys.and_then(|dir| SigningKeys::load(&dir, need).err());
    let api_names: Vec<&str> = outline.api_names.iter().map(String::as_str).collect();
    let context = LoadContext {
        // Nothing that is read here is used.
        digester: &TenantDigester::new(&[0; DIGEST_KEY_LEN], None),
        issuer: "",
        tenant_claim: &outline.tenant_claim,
        api_names: &api_names,
        static_lookup: false,
    };
    let clients = outline.clients_file.and_then(|file| clients::load(&file, &context).err());
    keys.into_iter().chain(clients).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_broken_config_does_not_hide_the_problems_of_the_files_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("clients.yaml", "clients: [{id: app, status: aproved, apis: [oda, other]}]");
        write(
            "tenantgate.yaml",
            "listen: {token: '127.0.0.1:0'}\n\
             issuer: {url: 'https://a', audience: a, token_ttl: soon, signing_keys: keys, \
             tenant_claim: {form: plain}}\n\
             clients: {file: clients.yaml}\n\
             apis: [{name: oda, routes: [{path: '/{tenant}', methods: [GET]}]}]\n",
        );
        let config = folder.path().join("tenantgate.yaml");
        let problems = validate(&config, &ProcessKey::generate().unwrap()).err().unwrap();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for place in [
            "issuer.token_ttl: ",
            "clients[0].status: ",
            "clients[0].apis[1]: ",
            "issuer.signing_keys: ",
        ] {
            let found = lines.iter().filter(|line| line.starts_with(place)).count();
            assert_eq!(found, 1, "{place}: {lines:#?}");
        }
        assert_eq!(lines.len(), 4, "{lines:#?}");
    }
}
