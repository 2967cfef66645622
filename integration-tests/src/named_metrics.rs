//! The metrics that documents, dashboard and alerts name, and those that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Each metric that is named, with the files that name it.
///
/// # Errors
///
/// When a file cannot be read.
pub fn named_metrics() -> io::Result<BTreeMap<String, BTreeSet<String>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut files = vec![root.join("README.md")];
    for folder in ["docs", "charts/pointsman"] {
        list(&root.join(folder), &mut files)?;
    }
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        for name in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let metric = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if metric && !name.ends_with('_') && !NO_METRICS.contains(&name) {
                named.entry(name.to_owned()).or_default().insert(file.display().to_string());
            }
        }
    }
    Ok(named)
}

/// The names of the samples; those of a histogram also without what they count.
pub fn metric_families(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next());
    names
        .flat_map(|name| {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            [Some(name), family].into_iter().flatten().map(str::to_owned)
        })
        .collect()
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if path.is_dir() {
            list(&path, files)?;
        } else if matches!(kind, Some("md" | "json" | "yaml" | "txt")) {
            files.push(path);
        }
    }
    Ok(())
}

const PREFIXES: [&str; 2] = ["pointsman_", "process_"];
/// Names with such a beginning that are something else: a variable of the session.
const NO_METRICS: [&str; 1] = ["pointsman_consistency"];
