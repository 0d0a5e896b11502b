//! Compiles the kernel programs into `ebpf/prebuilt`, or proves that what is there is what the
//! sources give.
//!
//! The programs need `core` built for the BPF target, so a compiler with its library's source: a
//! rustup nightly with `rust-src`, or Debian's `rustc-web` with `rust-web-src`. The objects do not
//! depend on the folder: paths are remapped and debug info is stripped.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

const LINKER: &str = "0.10.3";
const TARGET: &str = "bpfel-unknown-none";

/// Builds all objects; with `check`, compares them with the committed ones instead of writing.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = &env::current_dir()?;
    let prebuilt = root.join("ebpf/prebuilt");
    let recorded = prebuilt.join("TOOLCHAIN");
    let mut toolchains = Toolchain::all(root)?;
    if check {
        let recorded = fs::read_to_string(&recorded)
            .with_context(|| format!("cannot read {}", recorded.display()))?;
        let described = toolchains.iter().map(Toolchain::describe).collect::<Result<Vec<_>>>()?;
        let Some(at) = described.iter().position(|here| *here == recorded) else {
            let text = format!(
                "the recorded toolchain is not here, so the objects cannot be compared\n\
                 recorded:\n{recorded}here:\n{}",
                described.concat()
            );
            ensure!(env::var("CI").as_deref() != Ok("true"), "{text}");
            println!("{text}");
            return Ok(());
        };
        toolchains.swap(0, at);
    }
    let toolchain = toolchains.swap_remove(0);
    let built = toolchain.build(root)?;
    for object in &built {
        let name = object.file_name().context("an object has a name")?;
        let committed = prebuilt.join(name).with_extension("o");
        if check {
            ensure!(
                fs::read(object)? == fs::read(&committed).unwrap_or_default(),
                "{} is not what the sources give: run `cargo xtask build-ebpf` and commit it",
                committed.display()
            );
        } else {
            fs::copy(object, &committed)?;
        }
    }
    // An object whose source is gone must go too.
    for entry in fs::read_dir(&prebuilt)? {
        let path = entry?.path();
        let known =
            built.iter().any(|object| object.file_name() == path.with_extension("").file_name());
        if path.extension().is_some_and(|e| e == "o") && !known {
            ensure!(!check, "{} has no source", path.display());
            fs::remove_file(path)?;
        }
    }
    if !check {
        fs::write(recorded, toolchain.describe()?)?;
    }
    println!(
        "{} objects {}",
        built.len(),
        if check { "are as the sources give them" } else { "built" }
    );
    Ok(())
}

struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// Lets a compiler that is not a nightly use what only nightlies may.
    bootstrap: bool,
    linker: PathBuf,
    /// Where the linker finds the LLVM library that it was built against: the workspace's compiler's.
    llvm: PathBuf,
}

impl Toolchain {
    /// Every one that is here, at least one.
    fn all(root: &Path) -> Result<Vec<Self>> {
        let llvm = sysroot(Path::new("rustc"))?.join("lib");
        let linker = linker(root, &llvm)?;
        let rustup = |tool: &str| {
            output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]))
                .map(PathBuf::from)
        };
        let nightly = rustup("cargo").and_then(|cargo| Ok((cargo, rustup("rustc")?, false)));
        let packaged = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"), true);
        let all: Vec<_> = nightly
            .into_iter()
            .chain([packaged])
            .filter(|(cargo, rustc, _)| cargo.exists() && rustc.exists() && has_source(rustc))
            .map(|(cargo, rustc, bootstrap)| Self {
                cargo,
                rustc,
                bootstrap,
                linker: linker.clone(),
                llvm: llvm.clone(),
            })
            .collect();
        ensure!(
            !all.is_empty(),
            "no compiler with the source of its library: `rustup toolchain install nightly \
             --component rust-src`, or on Debian `apt-get install rustc-web cargo-web rust-web-src`"
        );
        Ok(all)
    }

    /// What decides the objects' bytes.
    fn describe(&self) -> Result<String> {
        let strip = output(Command::new("llvm-strip").arg("--version"))?;
        let strip =
            strip.lines().find(|l| l.contains("version")).unwrap_or_default().trim().to_owned();
        let linker = output(self.with_llvm(&self.linker).arg("--version"))?;
        Ok(format!(
            "{}\n{linker}\nllvm-strip: {strip}\n",
            output(Command::new(&self.rustc).arg("-V"))?,
        ))
    }

    fn with_llvm(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", &self.llvm);
        command
    }

    fn build(&self, root: &Path) -> Result<Vec<PathBuf>> {
        let target = root.join("target/ebpf");
        let cargo_home = env::var_os("CARGO_HOME").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
            PathBuf::from,
        );
        let flags = [
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            format!("-Clinker={}", self.linker.display()),
            format!("--remap-path-prefix={}=/fathom", root.display()),
            format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        ];
        let mut command = self.with_llvm(&self.cargo);
        command
            .current_dir(root.join("ebpf/probes"))
            .args(["build", "--release", "--locked", "-Zbuild-std=core", "--target", TARGET])
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTC", &self.rustc)
            // Set by the cargo that runs this command; they would reach the other toolchain.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO");
        if self.bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        succeed(&mut command)?;

        let mut objects = Vec::new();
        for entry in fs::read_dir(root.join("ebpf/probes/src/bin"))? {
            let source = entry?.path();
            let name = source.file_stem().context("a source has a name")?;
            let built = target.join(TARGET).join("release").join(name);
            let stripped = target.join(name);
            succeed(Command::new("llvm-strip").arg("-g").arg(&built).arg("-o").arg(&stripped))?;
            objects.push(stripped);
        }
        objects.sort();
        Ok(objects)
    }
}

/// The linker of the pinned version: from the search path, from `target/tools`, or installed there.
fn linker(root: &Path, llvm: &Path) -> Result<PathBuf> {
    let tools = root.join("target/tools");
    let own = tools.join("bin/bpf-linker");
    for candidate in [PathBuf::from("bpf-linker"), own.clone()] {
        let version =
            output(Command::new(&candidate).arg("--version").env("LD_LIBRARY_PATH", llvm));
        if version.is_ok_and(|v| v.ends_with(LINKER)) {
            return Ok(candidate);
        }
    }
    succeed(
        Command::new("cargo")
            .args(["install", "--quiet", "--locked", "--root"])
            .arg(&tools)
            .arg(format!("bpf-linker@{LINKER}"))
            .env("LD_LIBRARY_PATH", llvm),
    )?;
    Ok(own)
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    output(Command::new(rustc).args(["--print", "sysroot"])).map(PathBuf::from)
}

fn has_source(rustc: &Path) -> bool {
    sysroot(rustc).is_ok_and(|s| s.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
