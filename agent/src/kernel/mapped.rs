//! Array maps that are memory-mapped: reading them needs no system call.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
};

use aya::Ebpf;

use super::error::KernelError;

/// A read-only mapping of an array map with `BPF_F_MMAPABLE` (Linux 5.5).
pub(super) struct MappedArray<T> {
    start: NonNull<u8>,
    bytes: usize,
    entries: usize,
    of: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone and is only read, by copies.
unsafe impl<T: Send> Send for MappedArray<T> {}

impl<T: Copy> MappedArray<T> {
    /// Maps `entries` values. `T` must be the map's value type; its size must be a multiple of 8, the kernel's stride.
    pub(super) fn new(map: BorrowedFd<'_>, entries: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds values up to 8 bytes") };
        let entries = entries as usize;
        let bytes = entries * size_of::<T>();
        // SAFETY: a fresh mapping of a file descriptor; the kernel checks the length against the map.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { start, bytes, entries, of: PhantomData })
    }

    /// A copy of one value; `None` beyond the end.
    pub(super) fn get(&self, index: usize) -> Option<T> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: within the mapping, aligned because the stride is the type's size; volatile because the kernel writes.
        Some(unsafe { ptr::read_volatile(self.start.as_ptr().cast::<T>().add(index)) })
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and nobody holds a reference into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Memory-maps an array map.
pub(super) fn map_array<T: Copy>(
    ebpf: &Ebpf,
    name: &'static str,
    entries: u32,
) -> Result<MappedArray<T>, KernelError> {
    let map = match ebpf.map(name) {
        Some(aya::maps::Map::Array(map)) => map,
        _ => {
            let reason = "the object file has none of this name".to_owned();
            return Err(KernelError::Map { name, reason });
        }
    };
    MappedArray::new(map.fd().as_fd(), entries)
        .map_err(|error| KernelError::Map { name, reason: super::attach::error_chain(&error) })
}
