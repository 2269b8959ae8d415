//! Builds the programs with what they did in a run of the benchmark: `cargo xtask pgo`. The compiler then knows which branches are
//! taken and which functions are worth inlining.
//!
//! What always holds: nothing is written but below `pgo` in the target directory, and the sources are those of any other build; so the programs
//! do the same, in less time.
//!
//! On failure: what was built before stays.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::tree::{Tree, cargo, said};

const PROGRAMS: [&str; 5] = [
    "autocomplete",
    "bench",
    "coordinator",
    "shard-server",
    "watchdog",
];
/// What the programs do to be profiled: load, complete and record, alone and replicated. The figures are of no interest.
const WORK: [&str; 11] = [
    "--no-peers",
    "--replicated",
    "--end-in-order",
    "--terms",
    "300000",
    "--rounds",
    "1",
    "--time",
    "3s",
    "--connections",
    "1,16,64",
];

/// Builds, runs, and builds again with what was seen.
pub(crate) fn run(tree: &Tree) -> anyhow::Result<bool> {
    let folder = folder(tree)?;
    let merge = profdata()?;
    let raw = folder.join("raw");
    // Cargo builds libraries anew for another flag, and not for another profile of the same name.
    let merged = folder.join(format!("merged-{}.profdata", std::process::id()));
    forget(&raw)?;
    let trained = build(tree, &folder.join("training"), "-Cprofile-generate")?;
    let mut bench = Command::new(trained.join("bench"));
    // One file for each program, which its processes add to.
    bench
        .args(WORK)
        .env("LLVM_PROFILE_FILE", raw.join("%m.profraw"));
    done(&mut bench)?;
    let mut merging = Command::new(merge);
    merging.args(["merge", "--output"]).arg(&merged).arg(&raw);
    done(&mut merging)?;
    let built = build(
        tree,
        &folder,
        &format!("-Cprofile-use={}", merged.display()),
    )?;
    writeln!(std::io::stdout(), "the programs are in {}", built.display())?;
    Ok(true)
}

/// Where everything of this is kept.
fn folder(tree: &Tree) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| tree.path(Path::new("target")), PathBuf::from);
    Ok(std::path::absolute(target)?.join("pgo"))
}

/// Profiles of other sources say nothing of these.
#[expect(
    clippy::disallowed_methods,
    reason = "scratch space; the vfs crate is for data that must survive"
)]
fn forget(raw: &Path) -> anyhow::Result<()> {
    if raw.exists() {
        std::fs::remove_dir_all(raw).context("removing the profiles of the run before")?;
    }
    Ok(())
}

/// The tool that reads profiles, of the same version as the compiler.
fn profdata() -> anyhow::Result<PathBuf> {
    let libraries = said(compiler(["--print", "target-libdir"]))?;
    let beside = Path::new(libraries.trim()).with_file_name("bin");
    let tool = beside.join("llvm-profdata");
    anyhow::ensure!(
        tool.is_file(),
        "there is no llvm-profdata in {}: rustup component add llvm-tools",
        beside.display()
    );
    Ok(tool)
}

fn compiler<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("rustc");
    command.args(arguments);
    command
}

/// Builds the programs in a target directory of their own; gives the folder that has them.
fn build(tree: &Tree, target: &Path, flag: &str) -> anyhow::Result<PathBuf> {
    // With the host named, the flag reaches the programs only, and neither procedural macros nor build scripts.
    let host = said(compiler(["--print", "host-tuple"]))?;
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "--workspace", "--target"])
        .arg(host.trim())
        .args(PROGRAMS.iter().flat_map(|program| ["--bin", program]))
        .arg("--target-dir")
        .arg(target)
        // Encoded, for it may have spaces, and goes before what the environment says otherwise.
        .env("CARGO_ENCODED_RUSTFLAGS", flag)
        .current_dir(tree.path(Path::new("")));
    done(&mut command)?;
    Ok(target.join(host.trim()).join("release"))
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("running {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
