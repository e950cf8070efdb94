use std::fmt::Write as _;

use super::{Engine, Inputs};
use crate::domain::{Problem, Timestamp};
use crate::sources::SourceStatus;

/// How the sources were doing when they were last looked at.
#[derive(Debug, Default)]
pub struct Report {
    /// How each file and key set is.
    pub sources: Vec<SourceStatus>,
    /// What is broken now.
    pub problems: Vec<String>,
    /// Sections that were changed and wait for a restart.
    pub waiting_for_restart: Vec<&'static str>,
    /// What is allowed but rarely meant.
    pub warnings: Vec<String>,
}

impl Report {
    pub(super) fn of(inputs: &Inputs, further: &[Problem]) -> Self {
        let problems = inputs.problems();
        let problems = problems.iter().chain(further).map(ToString::to_string);
        Self {
            sources: inputs.statuses(),
            problems: problems.collect(),
            waiting_for_restart: inputs.waiting_for_restart(),
            warnings: inputs.warnings().iter().map(ToString::to_string).collect(),
        }
    }
}

impl Engine {
    /// Every source, those that other issuers serve included.
    fn sources(&self) -> Vec<SourceStatus> {
        let mut all = self.report.load().sources.clone();
        all.extend(self.issuers.statuses());
        all
    }

    /// What `/readyz?verbose` shows of all that decides and mints.
    pub fn describe(&self) -> String {
        let report = self.report.load();
        let mut text = match report.problems.is_empty() {
            true => "reload: ok\n".to_owned(),
            false => "reload: failed, the last good state runs on\n".to_owned(),
        };
        for problem in &report.problems {
            let _ = writeln!(text, "  {problem}");
        }
        for setting in &report.waiting_for_restart {
            let _ = writeln!(text, "changed, takes effect at the next start: {setting}");
        }
        let now = self.clock.now();
        for source in self.sources() {
            let _ = writeln!(text, "source {}: {}", source.name, condition(&source, now));
        }
        // The files' problems are told above.
        for source in self.issuers.statuses() {
            for problem in &source.problems {
                let _ = writeln!(text, "  {}: {problem}", source.name);
            }
        }
        self.describe_lookup(&mut text);
        self.describe_keys(&mut text);
        self.describe_apis(&mut text);
        self.describe_state(&mut text);
        for (name, task) in self.tasks.statuses() {
            let _ = writeln!(
                text,
                "task {name}: {} running, {} down, {} restarts",
                task.running, task.down, task.restarts
            );
        }
        text
    }

    /// Brings the gauges of the sources up to date.
    pub fn measure_sources(&self) {
        let (ok, success) = (&self.metrics.source_ok, &self.metrics.source_last_success);
        // Those of a former config are gone.
        ok.reset();
        success.reset();
        for source in self.sources() {
            let name = [source.name.as_str()];
            ok.with_label_values(&name).set(i64::from(source.is_ok() && source.in_force));
            if let Some(at) = source.confirmed_at {
                success.with_label_values(&name).set(at.secs() as f64);
            }
        }
    }
}

fn condition(source: &SourceStatus, now: Timestamp) -> String {
    let age = source.confirmed_at.map(|at| now.since(at).as_secs());
    match (source.is_ok(), source.in_force, age) {
        (true, true, Some(age)) => format!("ok, {age} s old"),
        (true, ..) => "not read yet".to_owned(),
        (false, true, Some(age)) => format!("broken, what it said {age} s ago is in force"),
        (false, true, None) => "broken in part, what can be read is in force".to_owned(),
        (false, false, _) => "broken, nothing of it was ever good".to_owned(),
    }
}
