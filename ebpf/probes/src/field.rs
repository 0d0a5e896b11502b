//! Kernel fields at offsets that user space sets.

use core::{cell::UnsafeCell, ffi::c_void, hint, mem::MaybeUninit, ptr};

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_probe_read_kernel,
    programs::{BtfTracePointContext, RawTracePointContext},
};

/// What a global for a field holds if this kernel does not have the field.
pub const ABSENT: u32 = u32::MAX;

/// Declares the fields and enum values that an object's programs read, as globals that user space
/// sets before it loads the program. The name is the BTF path in upper case with `_` for `.`:
/// `folio.flags` is `OFFSET_FOLIO_FLAGS`, the enum value `pageflags.PG_head` is
/// `ENUM_PAGEFLAGS_PG_HEAD`.
#[macro_export]
macro_rules! fields {
    ($($name:ident,)*) => {
        $(
            #[unsafe(no_mangle)]
            static $name: u32 = $crate::field::ABSENT;
        )*
    };
}

/// The value that user space has set a global to. Volatile, because the compiler knows the
/// initial value and would use that instead.
#[inline(always)]
pub fn set<T: Copy>(global: &'static T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { ptr::read_volatile(global) }
}

/// Whether this kernel has a field. The verifier knows the answer: what depends on it is either
/// always or never run.
#[inline(always)]
pub fn present(offset: &'static u32) -> bool {
    set(offset) != ABSENT
}

/// Its own address, once it is set: a pointer that is a number, too.
static ANCHOR: Anchor = Anchor(UnsafeCell::new(0));

struct Anchor(UnsafeCell<u64>);

// SAFETY: it is read and written whole, and only one value is ever written.
unsafe impl Sync for Anchor {}

/// Something in the kernel's memory that has fields.
pub trait Memory: Copy {
    /// Where it is.
    fn address(self) -> u64;
    /// Where it is, as a number to reckon with. The verifier allows no arithmetic with pointers whose types it knows.
    fn number(self) -> u64;
    /// The field at an offset; zero if it cannot be read.
    fn read<T: Copy + Default>(self, offset: &'static u32) -> T;
    /// What the pointer in the field at an offset points to.
    fn follow(self, offset: &'static u32) -> Self;
}

/// A kernel pointer whose type the verifier knows: an argument of a `tp_btf` or `fexit` program, or
/// something loaded from one. It may be read directly, which costs one instruction.
#[derive(Clone, Copy)]
pub struct Trusted(*const u8);

impl Trusted {
    /// An argument that is a pointer.
    #[inline(always)]
    pub const fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }
}

impl Memory for Trusted {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn number(self) -> u64 {
        // The difference of two pointers is a number to the verifier, and so is what is read from a map. A helper that reads
        // the pointer from the stack takes longer.
        let anchor = hint::black_box(ANCHOR.0.get());
        // SAFETY: whoever finds nothing there writes what everybody else does.
        let at = unsafe {
            if anchor.read_volatile() == 0 {
                anchor.write_volatile(anchor as u64);
            }
            anchor.read_volatile()
        };
        hint::black_box((self.0 as u64).wrapping_sub(anchor as u64)).wrapping_add(at)
    }

    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: &'static u32) -> T {
        // SAFETY: the verifier checks the offset against the pointer's type, and the kernel handles a
        // fault of such a load by reading zero.
        unsafe { ptr::read(self.0.add(set(offset) as usize).cast()) }
    }

    #[inline(always)]
    fn follow(self, offset: &'static u32) -> Self {
        // SAFETY: as in `read`.
        unsafe { ptr::read(self.0.add(set(offset) as usize).cast()) }
    }
}

/// A kernel address whose type the verifier does not know: it is read through a helper.
#[derive(Clone, Copy)]
pub struct Address(pub u64);

impl Memory for Address {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn number(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: &'static u32) -> T {
        probe_at(self.0.wrapping_add(u64::from(set(offset))))
    }

    #[inline(always)]
    fn follow(self, offset: &'static u32) -> Self {
        Self(self.read(offset))
    }
}

impl From<Trusted> for Address {
    #[inline(always)]
    fn from(pointer: Trusted) -> Self {
        Self(pointer.address())
    }
}

/// What a raw tracepoint hands over.
pub trait Arguments {
    /// What an argument that is a pointer may be read as.
    type Pointer: Memory;
    /// The argument at a place, which is a pointer.
    fn pointer(&self, place: usize) -> Self::Pointer;
}

impl Arguments for BtfTracePointContext {
    type Pointer = Trusted;

    #[inline(always)]
    fn pointer(&self, place: usize) -> Trusted {
        Trusted(self.arg(place))
    }
}

impl Arguments for RawTracePointContext {
    type Pointer = Address;

    #[inline(always)]
    fn pointer(&self, place: usize) -> Address {
        Address(self.arg(place))
    }
}

/// What stands at a kernel address; zero if it cannot be read. Nothing here depends on which of the two it is: the
/// verifier of Linux 5.10 would go through the rest of the program once for each, and again for each further read.
#[inline(always)]
pub fn probe_at<T: Copy + Default>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address. What it cannot read it sets to zero, as `Default` does for every `T`
    // here, which are numbers.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
        value.assume_init()
    }
}

/// The field at an offset in a classic tracepoint's record. The verifier lets a program read its context only where the
/// offset stands in the instruction. So it does for the first two fields, where they usually lie; which of the three
/// ways a program goes, the verifier knows. What lies elsewhere is read through a helper.
#[inline(always)]
pub fn record<T: Copy + Default>(context: &impl EbpfContext, offset: &'static u32) -> T {
    const FIRST: usize = 8;
    const SECOND: usize = 16;
    let record = context.as_ptr().cast::<u8>();
    // What is longer than a register takes several loads, which the compiler has begin at a computed address.
    if size_of::<T>() > size_of::<u64>() {
        return Address(record as u64).read(offset);
    }
    // Without the detours the compiler would compute the address of the field and load once.
    match set(offset) as usize {
        // SAFETY: the verifier checks that the record is as long.
        FIRST => hint::black_box(unsafe { ptr::read(record.add(FIRST).cast()) }),
        // SAFETY: as above.
        SECOND => hint::black_box(unsafe { ptr::read(record.add(SECOND).cast()) }),
        _ => Address(record as u64).read(offset),
    }
}

/// An index below `LENGTH`, checked where the verifier can see it: without the detour the compiler
/// proves the bound from facts that the verifier does not track, and drops the check.
#[inline(always)]
pub fn checked<const LENGTH: usize>(index: usize) -> Option<usize> {
    let index = core::hint::black_box(index);
    if index < LENGTH { Some(index) } else { None }
}
