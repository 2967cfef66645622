//! What must hold for any bytes, one function for each decoder.
//!
//! A function panics when its promise is broken. The targets in `fuzz_targets` call it with bytes that the fuzzer makes
//! up, the tests here with the seeds.

pub mod auth;
pub mod compress;
pub mod config;
pub mod handshake;
pub mod response;
pub mod sql;
pub mod wire;

/// A decoder's name and the check that its target runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the names of their seed folders.
pub const TARGETS: &[Target] = &[
    ("auth", auth::check),
    ("classify", sql::classify),
    ("command", wire::command),
    ("compress", compress::check),
    ("config", config::check),
    ("err", wire::err),
    ("handshake", handshake::check),
    ("ok", wire::ok),
    ("packet", wire::packet),
    ("proxy_protocol", wire::proxy_protocol),
    ("response", response::check),
    ("tokenizer", sql::tokenizer),
];

/// Takes the first byte, by which targets choose among options.
fn option(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::TARGETS;

    #[test]
    fn every_seed_passes() {
        for (name, check) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let seeds =
                std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let mut count = 0;
            for seed in seeds {
                let path = seed.expect("a folder that can be listed").path();
                check(&std::fs::read(&path).expect("a seed that can be read"));
                count += 1;
            }
            assert!(count > 0, "{} holds no seeds", folder.display());
        }
    }

    /// A target that nobody lists here would be run without seeds.
    #[test]
    fn every_target_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
        let files = std::fs::read_dir(folder).expect("the targets").map(|file| {
            let path = file.expect("a folder that can be listed").path();
            path.file_stem().expect("a file").to_string_lossy().into_owned()
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        let listed: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        assert_eq!(files, listed);
    }
}
