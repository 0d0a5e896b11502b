//! What differs between machines of different architectures.

/// An architecture that is supported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    /// As Rust calls it.
    pub(super) rust: &'static str,
    /// As Debian calls it.
    pub(super) debian: &'static str,
    /// The program that emulates it, with what it must be told.
    pub(super) qemu: (&'static str, &'static [&'static str]),
    /// What makes its second serial line, which the tests' output goes to.
    pub(super) second: &'static [&'static str],
    /// The terminals of the first and of the second line.
    pub(super) terminals: [&'static str; 2],
    /// What its kernel must be told.
    pub(super) kernel: &'static str,
    /// Debian's packages that it needs beside those that every machine needs.
    pub(super) packages: &'static [&'static str],
}

pub(super) const X86_64: Architecture = Architecture {
    rust: "x86_64",
    debian: "amd64",
    // With cx16, Linux 6.12 uses an instruction that the emulation gets wrong.
    qemu: ("qemu-system-x86_64", &["-cpu", "max,-cx16"]),
    second: &["-serial", "stdio"],
    terminals: ["ttyS0", "ttyS1"],
    // The last: a machine that has to wait for its CPU while it checks its timer would take it for broken.
    kernel: "tsc=reliable no_timer_check",
    packages: &[],
};

pub(super) const AARCH64: Architecture = Architecture {
    rust: "aarch64",
    debian: "arm64",
    // Authentication of pointers as the architecture has it takes half of an emulated processor's time.
    qemu: ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "max,pauth-impdef=on"]),
    // The machine has one line of its own.
    second: &["-chardev", "stdio,id=second", "-device", "pci-serial,chardev=second"],
    terminals: ["ttyAMA0", "ttyS0"],
    kernel: "",
    packages: &["qemu-system-arm", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
};

impl Architecture {
    /// The target of its programs.
    pub(super) fn target(&self) -> String {
        format!("{}-unknown-linux-gnu", self.rust)
    }

    /// The compiler of its C code, if this machine's own is none.
    pub(super) fn cross_compiler(&self) -> Option<String> {
        (self.rust != std::env::consts::ARCH).then(|| format!("{}-linux-gnu-gcc", self.rust))
    }
}
