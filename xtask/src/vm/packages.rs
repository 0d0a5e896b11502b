//! Kernels from Debian's packages, fetched by an apt of our own: its lists and its cache lie in `target/vm`, and the
//! machine's are left alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Kernel, find};
use crate::steps::run;

/// What a machine is made of, unpacked.
pub(super) struct Files {
    pub(super) image: PathBuf,
    /// The directory with `kernel/` in it.
    pub(super) modules: PathBuf,
    pub(super) busybox: PathBuf,
}

/// Where Debian's archives are, if the machine does not say.
const ARCHIVE: &str = "http://deb.debian.org/debian/";
const SECURITY: &str = "http://deb.debian.org/debian-security/";
const SUMS: &str = "SHA256SUMS";

/// The kernel's files: those that are there already and still what was downloaded, or new ones.
pub(super) fn fetch(directory: &Path, kernel: &Kernel, update: bool) -> Result<Files> {
    let own = directory.join(kernel.version);
    let (packages, unpacked) = (own.join("packages"), own.join("unpacked"));
    let kept = !update && packages.join(SUMS).is_file();
    if !kept {
        download(&own.join("apt"), &packages, kernel)?;
    }
    // What apt has verified by the archive's signatures once is recognized by its sums from then on.
    run(Command::new("sha256sum").args(["--check", "--quiet", SUMS]).current_dir(&packages))
        .with_context(|| format!("{} is damaged: remove it", packages.display()))?;
    if !kept || !unpacked.is_dir() {
        unpack(&packages, &unpacked)?;
    }
    let boot = find(&unpacked, "boot").map(|boot| boot.join("")).ok();
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path));
    let modules = modules.into_iter().find(|path| path.is_dir()).context("no modules")?;
    let modules = find(&modules, kernel.linux())?;
    let image = boot.and_then(|boot| find(&boot, "vmlinuz-").ok());
    let image = image.map_or_else(|| find(&modules, "vmlinuz"), Ok)?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path));
    let busybox = busybox.into_iter().find(|path| path.is_file()).context("no busybox")?;
    Ok(Files { image, modules, busybox })
}

fn download(apt: &Path, packages: &Path, kernel: &Kernel) -> Result<()> {
    let apt = Apt::new(apt, kernel)?;
    run(apt.get().arg("update"))?;
    let wanted = apt.kernel_packages(kernel)?;
    ensure!(
        !wanted.is_empty(),
        "the newest cloud kernel of Debian {} is no {} any more",
        kernel.release,
        kernel.linux(),
    );
    // Complete or absent.
    let partial = packages.with_extension("partial");
    for old in [&partial, packages] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    fs::create_dir_all(&partial)?;
    run(apt.get().arg("download").args(&wanted).arg("busybox-static").current_dir(&partial))?;
    let sums = Command::new("sh").args(["-c", "sha256sum *.deb"]).current_dir(&partial).output()?;
    ensure!(sums.status.success(), "sha256sum: {}", String::from_utf8_lossy(&sums.stderr));
    fs::write(partial.join(SUMS), sums.stdout)?;
    fs::rename(partial, packages)?;
    Ok(())
}

fn unpack(packages: &Path, unpacked: &Path) -> Result<()> {
    let partial = unpacked.with_extension("partial");
    for old in [partial.as_path(), unpacked] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    for entry in packages.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(path).arg(&partial))?;
        }
    }
    fs::rename(partial, unpacked)?;
    Ok(())
}

/// An apt that knows one release and believes that nothing is installed.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(directory: &Path, kernel: &Kernel) -> Result<Self> {
        let release = kernel.release;
        for needed in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(needed))?;
        }
        let (sources, status) = (directory.join("sources.list"), directory.join("status"));
        let (archive, security) = archives();
        let mut lines = format!("deb {archive} {release} main\n");
        // Everything else reaches sid directly.
        if release != "sid" {
            lines += &format!("deb {security} {release}-security main\n");
        }
        fs::write(&sources, lines)?;
        fs::write(&status, "")?;
        let path = |path: &Path| path.display().to_string();
        let options = vec![
            format!("Dir::Etc::SourceList={}", path(&sources)),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State={}", path(directory)),
            format!("Dir::State::Status={}", path(&status)),
            format!("Dir::Cache={}", path(&directory.join("cache"))),
            format!("APT::Architecture={}", kernel.architecture.debian),
            // Names of icons and the like, which some machines fetch too.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // As root it would want to be somebody who cannot write here.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--quiet"]);
        for option in &self.options {
            command.args(["--option", option]);
        }
        command
    }

    /// The kernel's packages as `name=version`: of those that installing the newest one would bring, the ones that are
    /// named after the version.
    fn kernel_packages(&self, kernel: &Kernel) -> Result<Vec<String>> {
        let mut install = self.get();
        install.args(["install", "--print-uris", "--no-install-recommends"]);
        let output = install
            .arg(format!("linux-image-cloud-{}", kernel.architecture.debian))
            .output()
            .context("start apt-get")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // 'http://…' name_version_architecture.deb size sum
        let text = String::from_utf8(output.stdout)?;
        let files = text.lines().filter_map(|line| line.split(' ').nth(1));
        Ok(files
            .filter(|file| {
                let name = file.split('_').next().unwrap_or_default();
                name.starts_with("linux-") && name.contains(&format!("-{}.", kernel.linux()))
            })
            .filter_map(|file| {
                let mut parts = file.split('_');
                Some(format!("{}={}", parts.next()?, parts.next()?.replace("%3a", ":")))
            })
            .collect())
    }
}

/// The archives that the machine takes its own packages from, if it is a Debian.
fn archives() -> (String, String) {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)"]);
    let output = targets.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    let find = |security: bool| {
        text.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (origin, codename, uri) = (words.next()?, words.next()?, words.next()?);
            let fits = codename.ends_with("-security") == security;
            (origin == "Debian" && fits).then(|| uri.to_owned())
        })
    };
    (
        find(false).unwrap_or_else(|| ARCHIVE.to_owned()),
        find(true).unwrap_or_else(|| SECURITY.to_owned()),
    )
}
