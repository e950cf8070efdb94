use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use url::{Host, Url};

use super::raw::{DurationText, FileText, UrlText};
use super::{Problem, SecretText};
use crate::domain::{DurationError, Secret, parse_duration};
use crate::files::{self, Others, Unguarded};
use crate::yaml::{Field, schema};

/// Turns single values into types and gathers what is wrong with them. A `None` that goes out has
/// been reported, and so has a field that comes in broken, or absent where it is needed.
pub struct Reader<'a> {
    folder: PathBuf,
    document: Value,
    pub problems: Vec<Problem>,
    /// What is allowed, but rarely meant.
    pub warnings: Vec<Problem>,
    /// Every file that was to be read, by its field.
    pub files: Vec<(String, PathBuf)>,
    /// What they said.
    pub texts: HashMap<PathBuf, Secret>,
    /// Files that are not read: this is what they say.
    instead: &'a HashMap<PathBuf, Secret>,
}

impl<'a> Reader<'a> {
    pub fn new(
        file: &Path,
        document: Value,
        problems: Vec<Problem>,
        instead: &'a HashMap<PathBuf, Secret>,
    ) -> Self {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let (warnings, files, texts) = (Vec::new(), Vec::new(), HashMap::new());
        Self { folder, document, problems, warnings, files, texts, instead }
    }

    pub fn problem(&mut self, field: &str, wrong: impl AsRef<str>, cure: impl AsRef<str>) {
        self.problems.push(Problem::new(field, wrong, cure));
    }

    pub fn warning(&mut self, field: &str, odd: impl AsRef<str>, cure: impl AsRef<str>) {
        self.warnings.push(Problem::new(field, odd, cure));
    }

    /// Parses every entry of a list, also those after a broken one.
    pub fn each<T, U>(
        &mut self,
        at: &str,
        list: Field<Vec<Field<T>>>,
        mut parse: impl FnMut(&mut Self, &str, T) -> Option<U>,
    ) -> Option<Vec<U>> {
        let entries = list.value()?.into_iter().enumerate();
        let mut parse = |(index, entry): (usize, Field<T>)| {
            parse(self, &format!("{at}[{index}]"), entry.value()?)
        };
        let parsed: Vec<Option<U>> = entries.map(&mut parse).collect();
        parsed.into_iter().collect()
    }

    /// Reports those of `keys` that are written below `at` but have no effect there.
    pub fn without_effect(&mut self, at: &str, keys: &[&str], because: &str) {
        for key in keys {
            let field = format!("{at}.{key}");
            // Of a key with a default its `Field` does not tell.
            if schema::at(&self.document, &field).is_some() {
                self.problem(&field, format!("has no effect {because}"), "remove it");
            }
        }
    }

    /// Text that is not empty and has no control characters.
    pub fn text(&mut self, field: &str, text: Field<String>) -> Option<String> {
        let text = text.value()?;
        if text.trim().is_empty() {
            self.problem(field, "is empty", "write a value");
            return None;
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            self.problem(field, "has control characters, or spaces at an end", "remove them");
            return None;
        }
        Some(text)
    }

    pub fn duration(&mut self, field: &str, text: Field<DurationText>) -> Option<Duration> {
        let DurationText(text) = text.value()?;
        let parsed = parse_duration(&text);
        if parsed.is_err() {
            self.problem(field, "is not a duration", DurationError::CURE);
        }
        parsed.ok()
    }

    pub fn positive_duration(
        &mut self,
        field: &str,
        text: Field<DurationText>,
    ) -> Option<Duration> {
        let duration = self.duration(field, text)?;
        if duration.is_zero() {
            self.problem(field, "must be more than zero", "write a duration such as `5m`");
            return None;
        }
        Some(duration)
    }

    pub fn leeway(&mut self, field: &str, text: Field<DurationText>) -> Option<Duration> {
        let duration = self.duration(field, text)?;
        if duration > Duration::from_secs(30) {
            self.problem(
                field,
                "is more than 30s",
                "write at most `30s`, and set the clocks instead",
            );
            return None;
        }
        Some(duration)
    }

    /// A URL that is safe to talk to: https, or http where it stays on this machine or
    /// `allow_http` says so.
    pub fn url(
        &mut self,
        field: &str,
        text: Field<UrlText>,
        allow_http: Field<bool>,
    ) -> Option<Url> {
        let url = self.any_url(field, text)?;
        let plain = url.scheme() == "http" && !is_loopback(&url);
        if plain && allow_http == Field::Value(false) {
            self.problem(
                field,
                "plain http:// outside loopback can be read and changed on its way",
                "use https://, or set `allow_http: true` beside it",
            );
            return None;
        }
        Some(url)
    }

    /// A URL whose safety is not ours to judge, such as a proxy's.
    pub fn any_url(&mut self, field: &str, text: Field<UrlText>) -> Option<Url> {
        let UrlText(text) = text.value()?;
        let example = "write it like `https://host.example.com/path`";
        let url = match Url::parse(&text) {
            Ok(url) => url,
            Err(error) => {
                self.problem(field, format!("is not a URL ({error})"), example);
                return None;
            }
        };
        let (wrong, cure) = if !matches!(url.scheme(), "http" | "https") {
            ("is neither https:// nor http://", example)
        } else if !url.username().is_empty() || url.password().is_some() {
            ("has a user name or a password in it", "take them out; credentials come from files")
        } else if url.fragment().is_some() {
            ("has a fragment", "remove the `#` and what follows")
        } else {
            return Some(url);
        };
        self.problem(field, wrong, cure);
        None
    }

    pub fn path(&self, text: &FileText) -> PathBuf {
        self.folder.join(&text.0)
    }

    pub fn file(&mut self, field: &str, file: Field<FileText>) -> Option<String> {
        let path = self.path(&file.value()?);
        self.files.push((field.to_owned(), path.clone()));
        let old = self.instead.get(&path).map(|text| text.expose().to_owned());
        let text = match old.map_or_else(|| fs::read_to_string(&path), Ok) {
            Ok(text) => text,
            Err(error) => {
                let wrong = format!("{} cannot be read ({error})", path.display());
                self.problem(field, wrong, "correct the path or its permissions");
                return None;
            }
        };
        self.texts.insert(path, Secret::new(text.clone()));
        Some(text)
    }

    /// A secret on one line of its own file.
    pub fn secret_file(&mut self, field: &str, file: Field<FileText>) -> Option<SecretText> {
        let mut text = self.file(field, file)?;
        let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        text.truncate(line.unwrap_or(&text).len());
        let secret = Secret::new(text);
        if secret.expose().is_empty() {
            self.problem(field, "names an empty file", "write the secret into it");
            return None;
        }
        let text = secret.expose();
        let odd = if text.starts_with('\u{feff}') {
            Some("names a file that starts with a byte order mark, which is sent too")
        } else if text.trim() != text {
            Some("names a file with blanks at an end of the secret, which are sent too")
        } else {
            None
        };
        if let Some(odd) = odd {
            self.warning(field, odd, "remove them unless they belong to the secret");
        }
        if secret.expose().chars().any(char::is_control) {
            self.problem(
                field,
                "names a file with control characters or several lines",
                "keep the secret alone in it",
            );
            return None;
        }
        Some(SecretText(secret))
    }

    /// A secret in a file that nobody else can have written.
    pub fn guarded_secret_file(
        &mut self,
        field: &str,
        file: Field<FileText>,
    ) -> Option<SecretText> {
        let path = self.path(file.as_ref().value()?);
        let secret = self.secret_file(field, file)?;
        // What is taken as it last was has passed this.
        if !self.instead.contains_key(&path)
            && let Err(Unguarded { wrong, cure }) = files::check_guarded(&path, Others::Read)
        {
            self.problem(field, format!("{}: {wrong}", path.display()), cure);
            return None;
        }
        Some(secret)
    }

    /// A secret that is sent as the value of a header.
    pub fn header_secret_file(&mut self, field: &str, file: Field<FileText>) -> Option<SecretText> {
        let secret = self.secret_file(field, file)?;
        if !secret.0.expose().bytes().all(|b| matches!(b, b' '..=b'~')) {
            self.problem(
                field,
                "names a file with characters that no header can carry",
                "use ASCII",
            );
            return None;
        }
        Some(secret)
    }
}

pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).to_canonical().is_loopback(),
        None => false,
    }
}
