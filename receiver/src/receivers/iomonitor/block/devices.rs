//! The names of the devices that programs have met.

use std::{collections::BTreeMap, fs};

use anyhow::Result;

use crate::ebpf::load::Loaded;

/// Names by the places that the programs gave the devices.
#[derive(Default)]
pub struct Devices(BTreeMap<u32, String>);

impl Devices {
    /// Looks at all of them again: a device that has gone keeps its last name.
    pub fn look(&mut self, loaded: &Loaded) -> Result<()> {
        for (place, number) in loaded.entries::<u32, u32>("DEVICES")? {
            match named(number) {
                Some(name) => drop(self.0.insert(place, name)),
                None => drop(self.0.entry(place).or_insert_with(|| numbers(number))),
            }
        }
        Ok(())
    }

    /// The name of the device at a place; `None` where those are that have none.
    pub fn name(&self, place: u32) -> Option<&str> {
        self.0.get(&place).map(String::as_str)
    }
}

/// The name under which the kernel has a device now.
fn named(number: u32) -> Option<String> {
    let link = fs::read_link(format!("/sys/dev/block/{}", numbers(number))).ok()?;
    // In names, sysfs has ! for /.
    Some(link.file_name()?.to_str()?.replace('!', "/"))
}

/// `major:minor`, by the kernel's own encoding (include/linux/kdev_t.h).
fn numbers(number: u32) -> String {
    format!("{}:{}", number >> 20, number & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(numbers(7 << 20 | 3), "7:3");
        assert_eq!(numbers(259 << 20 | 0xf_ffff), "259:1048575");
        assert_eq!(named(0), None);
    }
}
