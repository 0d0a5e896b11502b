//! What is known about something between two of its events, under its address.
//!
//! The kernel uses memory again, so that the addresses of what comes and goes are few: each keeps a seat, and nothing
//! is allocated, searched or freed for an event. A hash has whatever finds its seat taken, and decides who gets a seat.

use abi::{
    Plain,
    seat::{Seat, seat},
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    maps::{Array, HashMap},
};

/// The two maps. No events of one address may come at the same time. Of address 0, zeros may be known.
pub struct Seats<V: Plain> {
    /// 2^`bits` seats.
    pub seats: &'static Array<Seat<V>>,
    /// The binary logarithm of how many there are.
    pub bits: u32,
    /// Under an address, what has no seat. Under the number of a seat, that it is taken: nothing else that all kernels
    /// have decides between two that want it at once. So it needs room for both.
    pub others: &'static HashMap<u64, V>,
}

impl<V: Plain> Seats<V> {
    /// What is known about `address`.
    #[inline(always)]
    pub fn get(&self, address: u64) -> Option<*mut V> {
        let seat = self.seats.get_ptr_mut(seat(address, self.bits))?;
        // SAFETY: the pointer is to an entry of the map; an address stands there if this has written it for that.
        unsafe {
            if (*seat).of == address {
                return Some(&raw mut (*seat).value);
            }
        }
        self.others.get_ptr_mut(&address)
    }

    /// Sets what is known about `address`. False if there is no room.
    #[inline(always)]
    pub fn put(&self, address: u64, value: &V) -> bool {
        let number = seat(address, self.bits);
        let Some(seat) = self.seats.get_ptr_mut(number) else { return false };
        // SAFETY: as in `get`; whoever has taken a seat alone writes there.
        unsafe {
            if (*seat).of == address {
                (*seat).value = *value;
                return true;
            }
            if (*seat).of == 0
                && self.others.insert(&u64::from(number), value, u64::from(BPF_NOEXIST)).is_ok()
            {
                *seat = Seat { of: address, value: *value };
                return true;
            }
        }
        self.others.insert(&address, value, 0).is_ok()
    }

    /// Nothing more is known about `address`, of which there will be more: a seat is kept, and `rest` done to what is
    /// there.
    #[inline(always)]
    pub fn end(&self, address: u64, rest: impl FnOnce(&mut V)) {
        if let Some(seat) = self.seats.get_ptr_mut(seat(address, self.bits)) {
            // SAFETY: as in `put`.
            unsafe {
                if (*seat).of == address {
                    return rest(&mut (*seat).value);
                }
            }
        }
        let _ = self.others.remove(&address);
    }

    /// Nothing will be known about `address` any more: its seat is free.
    #[inline(always)]
    pub fn leave(&self, address: u64) {
        let number = seat(address, self.bits);
        if let Some(seat) = self.seats.get_ptr_mut(number) {
            // SAFETY: as in `put`. It is free for another when it is empty and not before.
            unsafe {
                if (*seat).of == address {
                    (*seat).of = 0;
                    let _ = self.others.remove(&u64::from(number));
                    return;
                }
            }
        }
        let _ = self.others.remove(&address);
    }
}
