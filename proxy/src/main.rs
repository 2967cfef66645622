//! The program `pointsman`.

use std::process::ExitCode;

/// Sessions come and go on all workers: an allocator with caches of each thread keeps them from waiting for each
/// other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    pointsman::cli::run()
}
