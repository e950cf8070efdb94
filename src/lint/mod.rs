//! Reads how Envoy, or the gateway in front of it, is set up to ask tenantgate, and names what
//! would let requests pass unchecked, close the API, or put tenant codes into logs.

mod documents;
mod envoy;
mod kubernetes;
mod node;
mod rules;
#[cfg(test)]
mod tests;

use serde_json::Value;

use node::Node;

pub use documents::MAX_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub place: String,
    pub what: String,
    pub why: String,
    pub cure: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { severity, place, what, why, cure } = self;
        write!(f, "{} {place}: {what}, {why}; {cure}", severity.name())
    }
}

/// A document that is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub place: String,
    pub why: String,
}

#[derive(Default, Debug)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub skipped: Vec<Skipped>,
}

impl Report {
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn error(&mut self, at: &Node, what: impl Into<String>, why: &str, cure: &str) {
        self.add(finding(at, what, why, cure));
    }

    fn warning(&mut self, at: &Node, what: impl Into<String>, why: &str, cure: &str) {
        self.add(Finding { severity: Severity::Warning, ..finding(at, what, why, cure) });
    }

    fn add(&mut self, finding: Finding) {
        // A cluster is looked at once for every filter that names it.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn skip(&mut self, at: &Node, why: impl Into<String>) {
        self.skipped.push(Skipped { place: at.place(), why: why.into() });
    }
}

fn finding(at: &Node, what: impl Into<String>, why: &str, cure: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        place: at.place(),
        what: what.into(),
        why: why.to_owned(),
        cure: cure.to_owned(),
    }
}

/// A file that could be read, by the name that is shown.
pub struct File {
    pub name: String,
    pub text: String,
}

/// A config dump, or a bootstrap. `Err`: what is wrong with the file.
pub fn envoy(file: &File) -> Result<Report, String> {
    let documents = documents::read(file)?;
    let [document] = &documents[..] else {
        return Err(format!("{}: {} documents; {}", file.name, documents.len(), envoy::EXPECTED));
    };
    let mut report = Report::default();
    let document = envoy::with_field_names(document.clone());
    envoy::lint(&mut report, &Node::root(&document, &file.name))
        .map_err(|wrong| format!("{}: {wrong}", file.name))?;
    Ok(report)
}

/// Resources of Kubernetes, and Istio's mesh config. `Err`: what is wrong with each file.
pub fn kubernetes(files: &[File]) -> Result<Report, Vec<String>> {
    let (mut documents, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        match documents::read(file).and_then(|read| kubernetes::resources(&file.name, read)) {
            Ok(read) => documents.extend(read),
            Err(error) => wrong.push(error),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut report = Report::default();
    kubernetes::lint(&mut report, &documents);
    Ok(report)
}

/// The report as one JSON object.
pub fn to_json(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        serde_json::json!({
            "severity": finding.severity.name(),
            "place": finding.place,
            "what": finding.what,
            "why": finding.why,
            "cure": finding.cure,
        })
    };
    let skipped =
        |skipped: &Skipped| serde_json::json!({"place": skipped.place, "why": skipped.why});
    serde_json::json!({
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "skipped": report.skipped.iter().map(skipped).collect::<Vec<_>>(),
    })
}
