//! A compiled object before it is loaded: what its maps will cost, and what must be changed in it for
//! this kernel.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use aya::util::nr_cpus;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use abi::group::{BY_GROUP, BY_SEAT};

/// `BPF_F_NO_PREALLOC` of include/uapi/linux/bpf.h.
const NO_PREALLOC: u32 = 1;

/// A map's definition, as `bpf_map_def` has it: type, key size, value size, entries, flags.
pub(super) struct MapDefinition {
    pub(super) name: String,
    kind: u32,
    key: u64,
    value: u64,
    entries: u64,
}

/// Types of maps in include/uapi/linux/bpf.h.
const HASH: u32 = 1;
const PERCPU_HASH: u32 = 5;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const RING_BUFFER: u32 = 27;

impl MapDefinition {
    /// The most memory that the map can take, by what the kernel allocates (measured: an entry of a hash
    /// has 80 bytes besides its key and values; a bucket has 16).
    fn bytes(&self, entries: u64, cpus: u64) -> u64 {
        let value = self.value.next_multiple_of(8);
        let buckets = entries.next_power_of_two() * 16;
        match self.kind {
            HASH | LRU_HASH => entries * (80 + self.key + value) + buckets,
            PERCPU_HASH => entries * (80 + self.key + value * cpus) + buckets,
            PERCPU_ARRAY => entries * value * cpus,
            RING_BUFFER => entries,
            _ => entries * value,
        }
    }
}

/// An object, about to be loaded.
pub(super) struct Prepared {
    pub(super) bytes: Vec<u8>,
    /// The number of entries of maps whose number is not as defined.
    pub(super) sizes: Vec<(String, u32)>,
    /// The most memory that all its maps can take.
    pub(super) memory: u64,
}

/// Prepares an object: `size` gives the entries of a map if they are not to be as defined;
/// `may_allocate` says whether this kernel's tracing programs may use maps that allocate on demand, `seats` how many
/// cells of seats an array of cells has before its own.
pub(super) fn prepare(
    object: &[u8],
    may_allocate: bool,
    seats: u32,
    size: impl Fn(&str) -> Option<u32>,
) -> Result<Prepared> {
    let mut bytes = object.to_vec();
    let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))? as u64;
    let (mut sizes, mut memory) = (Vec::new(), 0);
    let maps = maps(object)?;
    let has_seats: BTreeSet<String> = maps
        .iter()
        .filter_map(|(map, _)| Some(map.name.strip_suffix(BY_SEAT)?.to_owned()))
        .collect();
    for (definition, flags_at) in maps {
        let own = u32::try_from(definition.entries).unwrap_or(u32::MAX);
        let entries = match definition.name.as_str() {
            // The fewest that a map can have.
            name if seats == 0 && name.ends_with(BY_SEAT) => 1,
            name if has_seats.contains(name) => size(name).unwrap_or(own) + seats,
            name => size(name).unwrap_or(own),
        };
        memory += definition.bytes(entries.into(), cpus);
        if entries != own {
            sizes.push((definition.name, entries));
        }
        if !may_allocate {
            let flags = bytes.get_mut(flags_at..flags_at + 4).context("a map without flags")?;
            let kept = u32::from_le_bytes(flags.try_into()?) & !NO_PREALLOC;
            flags.copy_from_slice(&kept.to_le_bytes());
        }
    }
    Ok(Prepared { bytes, sizes, memory })
}

/// Whether a map has an entry for each group.
pub(super) fn is_by_group(map: &str) -> bool {
    map.ends_with(BY_GROUP)
}

/// The definitions of an object's maps, and where in the file the flags of each are.
fn maps(bytes: &[u8]) -> Result<Vec<(MapDefinition, usize)>> {
    let object = object::File::parse(bytes).context("an object is an ELF file")?;
    let Some(section) = object.section_by_name("maps") else { return Ok(Vec::new()) };
    let (start, _) = section.file_range().context("its maps are not in the file")?;
    let mut maps = Vec::new();
    for symbol in object.symbols().filter(|s| s.section_index() == Some(section.index())) {
        let name = symbol.name()?;
        if name.is_empty() || symbol.size() == 0 {
            continue;
        }
        let at = usize::try_from(start + symbol.address())?;
        let Some(definition) = bytes.get(at..at + 20) else { bail!("map {name} is cut off") };
        let mut words =
            definition.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        let mut word = || words.next().unwrap_or_default();
        let definition = MapDefinition {
            name: name.to_owned(),
            kind: word(),
            key: word().into(),
            value: word().into(),
            entries: word().into(),
        };
        maps.push((definition, at + 16));
    }
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use object::SectionKind;

    use super::*;

    /// An instruction takes eight bytes; of one that loads 64 bits, the second eight are no instruction
    /// (Documentation/bpf/standardization/instruction-set.rst).
    const LOAD_64_BITS: u8 = 0x18;
    const CALL: u8 = 0x85;
    /// In the upper half of the second byte: the call is of one of the object's functions, not of the kernel's.
    const OF_OWN: u8 = 1;

    fn calls_a_function(code: &[u8]) -> bool {
        let mut instructions = code.chunks_exact(8);
        while let Some(instruction) = instructions.next() {
            match instruction[0] {
                LOAD_64_BITS => _ = instructions.next(),
                CALL if instruction[1] >> 4 == OF_OWN => return true,
                _ => {}
            }
        }
        false
    }

    /// Before Linux 6.2 the verifier takes every number in a program that does to matter (`__mark_reg_unknown`), and looks
    /// at up to a million instructions of what has ten thousand.
    #[test]
    fn no_program_calls_a_function_of_its_own() {
        let mut programs = 0;
        let prebuilt = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ebpf/prebuilt");
        for file in fs::read_dir(prebuilt).expect("objects") {
            let path = file.expect("an object").path();
            if path.extension().is_none_or(|extension| extension != "o") {
                continue;
            }
            let bytes = fs::read(&path).expect("an object");
            let object = object::File::parse(&*bytes).expect("an ELF file");
            for section in object.sections().filter(|s| s.kind() == SectionKind::Text) {
                let name = section.name().expect("a name");
                // What nobody calls, the compiler's library, is there too.
                if name != ".text" {
                    programs += 1;
                    let code = section.data().expect("code");
                    assert!(!calls_a_function(code), "{}: {name}: memset?", path.display());
                }
            }
        }
        assert!(programs > 50, "{programs} programs");
    }
}
