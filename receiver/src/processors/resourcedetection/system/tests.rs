//! Files of machines, and what this machine says of itself.

use super::*;

fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("can be made");
        fs::write(path, text).expect("can be written");
    }
    root
}

fn all_on() -> Switches {
    Switches(ATTRIBUTES.iter().map(|(name, _)| *name).collect())
}

async fn lines(root: &Path, sources: &[Source], switches: &Switches) -> Vec<String> {
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    detect(root, sources, switches, deadline).await.expect("it does not fail").lines()
}

fn os_hostname() -> String {
    nix::unistd::gethostname().expect("it has one").to_string_lossy().into_owned()
}

#[tokio::test]
async fn by_default_it_is_the_name_and_the_type() {
    let switches = Switches::new(ATTRIBUTES, &Default::default());
    let expected = [format!("host.name={}", os_hostname()), "os.type=linux".to_owned()];
    assert_eq!(lines(Path::new("/"), &[Source::Os], &switches).await, expected);
}

#[tokio::test]
async fn files_say_the_rest() {
    let hosts = format!("127.0.0.1 localhost\n10.0.0.1 db.example.org\t{} # it\n", os_hostname());
    let root = root(&[
        ("etc/hosts", &hosts),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        (
            "etc/os-release",
            "# x\nNAME=\"Some \\\"Linux\\\"\"\nVERSION='12 (worm)'\nVERSION_ID=12\nID=some\nBUILD_ID=rolling\n\nEMPTY=\n",
        ),
        (
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: V\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: A: B\n\
             stepping\t: 7\ncache size\t: 99 KB\n\nprocessor\t: 1\nvendor_id\t: W\n",
        ),
        ("sys/devices/system/cpu/cpu0/cache/index1/level", "1\n"),
        ("sys/devices/system/cpu/cpu0/cache/index1/size", "32K\n"),
        ("sys/devices/system/cpu/cpu0/cache/index2/level", "2\n"),
        ("sys/devices/system/cpu/cpu0/cache/index2/size", "1024K\n"),
    ]);
    let found = lines(root.path(), &[Source::Dns, Source::Os], &all_on()).await;
    let kernel = kernel().expect("it has one");
    let expected = [
        "host.name=db.example.org",
        "host.id=0123456789abcdef0123456789abcdef",
        "host.cpu.vendor.id=V",
        "host.cpu.family=6",
        "host.cpu.model.id=85",
        "host.cpu.model.name=A: B",
        "host.cpu.stepping=7",
        "host.cpu.cache.l2.size=1048576",
        "os.build.id=rolling",
        "os.name=some",
        "os.version=12",
        &format!("os.description=Some \"Linux\" 12 (worm) ({kernel})"),
    ];
    for line in expected {
        assert!(found.iter().any(|l| l == line), "{line} is not in {found:#?}");
    }
}

#[test]
fn distributions_are_named_by_their_files() {
    let of = |files: &[(&str, &str)]| {
        let root = root(files);
        let release = release(root.path());
        let found = platform(root.path(), |key| release.get(key).cloned());
        format!("{} {}", found.name.unwrap_or_default(), found.version.unwrap_or_default())
    };
    let os = ("etc/os-release", "ID=\"amzn\"\nVERSION_ID=\"2023\"\n");
    let debian = ("etc/debian_version", "12.11\n");
    let lsb = ("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=\"24.04\"\n");
    assert_eq!(of(&[os]), "amazon 2023");
    assert_eq!(of(&[os, debian]), "debian 12.11");
    assert_eq!(of(&[os, debian, lsb]), "ubuntu 24.04");
    assert_eq!(of(&[os, debian, ("usr/bin/raspi-config", "")]), "raspbian 12.11");
    assert_eq!(of(&[os, ("etc/alpine-release", "3.22.1\n")]), "alpine 3.22.1");
    let red_hat = |text| of(&[os, ("etc/redhat-release", text)]);
    assert_eq!(red_hat("Red Hat Enterprise Linux release 9.4 (Plow)\n"), "redhat 9.4");
    assert_eq!(red_hat("Rocky Linux release 8.10 (Green Obsidian)\n"), "rocky 8.10");
    assert_eq!(red_hat("Fedora release 43 (Rawhide)\n"), "fedora rawhide");
    let suse = "openSUSE 13.2 (x86_64)\nVERSION = 13.2\nPATCHLEVEL = 3\n";
    assert_eq!(of(&[("etc/SuSE-release", suse)]), "opensuse 13.2.3");
    assert_eq!(of(&[("etc/slackware-version", "Slackware 15.0\n")]), "slackware 15.0");
    assert_eq!(of(&[]), " ");
}

#[tokio::test]
async fn interfaces_are_named_once_and_a_build_has_an_id() {
    let found = lines(Path::new("/"), &[Source::Os], &all_on()).await;
    let line =
        |key: &str| found.iter().find_map(|line| line.strip_prefix(key)).expect("it is there");
    let names: Vec<_> = line("host.interface=").split(',').collect();
    assert_eq!(names.iter().filter(|name| **name == "lo").count(), 1, "{names:?}");
    assert!(!line("os.build.id=").is_empty());
}

#[tokio::test]
async fn what_no_file_says_is_absent() {
    let root = root(&[("etc/machine-id", "uninitialized\n")]);
    let found = lines(root.path(), &[Source::Os], &all_on()).await;
    for absent in ["host.id", "os.name", "os.version", "host.cpu"] {
        assert!(!found.iter().any(|line| line.starts_with(absent)), "{absent}: {found:#?}");
    }
    let kernel = kernel().expect("it has one");
    assert!(found.contains(&format!("os.description={kernel}")), "{found:#?}");
    assert!(kernel.starts_with("Linux "), "{kernel}");
}

#[test]
fn the_hosts_file_is_read_as_resolvers_do() {
    let hosts =
        "# 1.1.1.1 a\n127.0.0.1\tlocalhost\n10.0.0.1 a.example.org a\n10.0.0.2 a2 b\n\n::1\n";
    let name = |own| of_hosts(hosts, own);
    assert_eq!(name("a").as_deref(), Some("a.example.org"));
    assert_eq!(name("a.example.org").as_deref(), Some("a.example.org"));
    assert_eq!(name("b").as_deref(), Some("a2"));
    assert_eq!(name("c"), None);
    assert_eq!(name("127.0.0.1"), None);
}

/// The resolver that is here; `localhost` is in every hosts file.
#[test]
fn the_resolver_is_asked() {
    assert!(!canonical("localhost").expect("it is known").is_empty());
    assert!(!reverse("localhost").expect("it is known").is_empty());
    assert!(canonical("no-such-host.invalid").is_err());
    assert!(reverse("no-such-host.invalid").is_err());
}

#[tokio::test]
async fn a_resolver_that_hangs_is_given_up() {
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let hung = move || {
        let _ = held.recv();
        Ok("late".to_owned())
    };
    let error = in_time(hung, Instant::now()).await.expect_err("it does not answer");
    assert_eq!(error.to_string(), "no answer in time");
    drop(release);
    let far = Instant::now() + std::time::Duration::from_secs(30);
    let answer = in_time(|| Ok("soon".to_owned()), far).await;
    assert_eq!(answer.expect("it answers"), "soon");
}

#[tokio::test]
async fn the_sources_are_tried_in_their_order() {
    let root = root(&[("etc/hosts", &format!("10.0.0.1 db.example.org {}\n", os_hostname()))]);
    let far = Instant::now() + std::time::Duration::from_secs(30);
    let first = async |sources: &[Source]| name(root.path(), sources, far).await.ok();
    assert_eq!(first(&[Source::Os, Source::Dns]).await, Some(os_hostname()));
    assert_eq!(first(&[Source::Dns, Source::Os]).await.as_deref(), Some("db.example.org"));
    let none = name(root.path(), &[], far).await.expect_err("none is asked");
    assert_eq!(none.to_string(), "all hostname sources failed to get hostname");
}
