//! Configurations.

use std::path::PathBuf;
use std::sync::LazyLock;

use pointsman_config::{Flag, MASK, Sources, diff, load, to_json, to_toml};

use crate::option;

/// A folder of this process; each input takes the place of the one before.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("pointsman-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for configurations");
    folder
});

/// Faults can be shown, and what has none can be shown and is the same when it is read again.
pub fn check(data: &[u8]) {
    let (chosen, rest) = option(data);
    let sources = match chosen & 3 {
        0 => file("toml", rest),
        1 => file("json", rest),
        2 => Sources { environment: pairs(rest), ..Sources::default() },
        _ => Sources { flags: pairs(rest).into_iter().map(flag).collect(), ..Sources::default() },
    };
    let loaded = match load(&sources) {
        Ok(loaded) => loaded,
        Err(faults) => {
            assert!(!faults.to_string().is_empty());
            return;
        }
    };
    let _json = to_json(&loaded.config);
    let shown = to_toml(&loaded.config, &loaded.origins);
    if shown.contains(MASK) {
        return;
    }
    let again =
        load(&file("shown.toml", shown.as_bytes())).unwrap_or_else(|faults| panic!("{faults}\n{shown}"));
    assert!(diff(&loaded.config, &again.config).is_empty(), "{shown}");
}

fn file(extension: &str, text: &[u8]) -> Sources {
    let path = FOLDER.join(format!("pointsman.{extension}"));
    std::fs::write(&path, text).expect("a file for a configuration");
    Sources { file: Some(path), ..Sources::default() }
}

/// Lines of the form NAME=VALUE.
fn pairs(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let split = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.lines().filter_map(split).collect()
}

fn flag((key, value): (String, String)) -> Flag {
    Flag { name: format!("--{key}"), key, values: value.split(',').map(str::to_owned).collect() }
}
