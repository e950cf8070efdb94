//! Figures as a table for people and as JSON for machines.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// One section of the report.
pub struct Table {
    name: &'static str,
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Option<f64>>)>,
    notes: Vec<String>,
}

impl Table {
    pub fn new(name: &'static str, title: impl Into<String>, columns: &[&'static str]) -> Self {
        let (columns, rows, notes) = (columns.to_vec(), Vec::new(), Vec::new());
        Self { name, title: title.into(), columns, rows, notes }
    }

    /// `None`: this figure does not exist for this row.
    pub fn row(&mut self, name: impl Into<String>, figures: &[Option<f64>]) {
        assert_eq!(figures.len(), self.columns.len(), "a figure for every column");
        self.rows.push((name.into(), figures.to_vec()));
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn publish(&self) {
        println!("\n## {}\n\n{}", self.title, self.text());
        let folder = target().join("bench");
        let written = fs::create_dir_all(&folder).and_then(|()| {
            let json = serde_json::to_string_pretty(&self.json()).expect("plain values");
            fs::write(folder.join(format!("{}.json", self.name)), json + "\n")
        });
        written.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }

    fn text(&self) -> String {
        let mut lines = vec![format!(
            "| |{}",
            self.columns.iter().map(|c| format!(" {c} |")).collect::<String>()
        )];
        lines.push(format!("|---|{}", "---:|".repeat(self.columns.len())));
        for (name, figures) in &self.rows {
            let cells: String =
                figures.iter().map(|figure| format!(" {} |", number(*figure))).collect();
            lines.push(format!("| {name} |{cells}"));
        }
        lines.push(String::new());
        lines.extend(self.notes.iter().cloned());
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let row = |(name, figures): &(String, Vec<Option<f64>>)| {
            let figures = self.columns.iter().zip(figures);
            let figures: Map<String, Value> =
                figures.map(|(column, figure)| ((*column).to_owned(), json!(figure))).collect();
            (name.clone(), Value::Object(figures))
        };
        let rows: Map<String, Value> = self.rows.iter().map(row).collect();
        json!({ "title": self.title, "rows": rows, "notes": self.notes })
    }
}

fn number(figure: Option<f64>) -> String {
    match figure {
        None => "-".to_owned(),
        Some(figure) if figure >= 1000.0 => format!("{figure:.0}"),
        Some(figure) if figure >= 100.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}

/// On what the figures were measured, and how busy it was with other things.
pub fn machine(when: &str) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let models: Vec<&str> = processors
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| line.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    let model = models.first().copied().unwrap_or("unknown");
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    println!("{when}: {} x {model}, Linux {}, load {load}", models.len(), kernel.trim());
}

/// What of the processors' time since boot went to whom, in the kernel's ticks.
pub struct Ticks {
    all: f64,
    stolen: f64,
}

impl Ticks {
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> =
            line.split_whitespace().skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
        Self { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or_default() }
    }

    /// The percentage that the host gave to other machines. What it takes away counts as CPU time
    /// of whatever ran.
    pub fn stolen_since(&self, earlier: &Self) -> f64 {
        100.0 * (self.stolen - earlier.stolen) / (self.all - earlier.all).max(1.0)
    }
}

/// This program lies in `target/release/deps/`, wherever `target` is.
pub fn target() -> std::path::PathBuf {
    let program = std::env::current_exe().expect("the program's own path");
    program.ancestors().nth(3).unwrap_or(Path::new("target")).to_owned()
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}

/// The median over rounds of one figure to another of the same round: what disturbs a round
/// disturbs both.
pub fn median_ratio(figures: &[f64], base: &[f64]) -> f64 {
    median(figures.iter().zip(base).map(|(figure, base)| figure / base).collect())
}

/// `share` of the sorted values are at most this.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
