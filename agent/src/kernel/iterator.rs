//! The link between an iterator program and a cgroup directory.
//!
//! aya 0.14 attaches an iterator without `bpf_iter_link_info`. The kernel refuses that for cgroups, which need an order and
//! a first cgroup. Hence the two bpf(2) calls here.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
/// `enum bpf_attach_type`.
const BPF_TRACE_ITER: u32 = 28;
/// `enum bpf_cgroup_iter_order`: the cgroups that are visited.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Order {
    /// The first cgroup only.
    SelfOnly = 1,
    /// The first cgroup and its descendants, in pre-order.
    Descendants = 2,
}

/// `union bpf_iter_link_info`, the part for cgroups.
#[repr(C)]
struct CgroupIterInfo {
    order: u32,
    cgroup_fd: u32,
    cgroup_id: u64,
}

/// `union bpf_attr` for `BPF_LINK_CREATE` of an iterator.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// An iterator program linked to a cgroup and its descendants. Detached when dropped.
#[derive(Debug)]
pub struct CgroupIterator {
    link: OwnedFd,
    /// Index of the sampled hierarchy whose cgroups a walk caches, if any.
    pub(super) hierarchy: Option<u32>,
}

impl CgroupIterator {
    /// Links `program` to the cgroup directory `start` and, depending on `order`, its descendants.
    pub(super) fn new(program: BorrowedFd<'_>, start: &File, order: Order) -> io::Result<Self> {
        let info = CgroupIterInfo { order: order as u32, cgroup_fd: fd_number(start.as_fd()), cgroup_id: 0 };
        let create = LinkCreate {
            prog_fd: fd_number(program),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info: (&raw const info) as u64,
            iter_info_len: size_of::<CgroupIterInfo>() as u32,
            padding: 0,
        };
        Ok(Self { link: bpf(BPF_LINK_CREATE, &create)?, hierarchy: None })
    }

    /// Walks the cgroups once: the kernel calls the program for each, under `cgroup_mutex`.
    pub(super) fn run(&self) -> io::Result<()> {
        let session = bpf(BPF_ITER_CREATE, &IterCreate { link_fd: fd_number(self.link.as_fd()), flags: 0 })?;
        let mut session = File::from(session);
        let mut nothing = [0; 64];
        while session.read(&mut nothing)? > 0 {}
        Ok(())
    }
}

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// A bpf(2) call that returns a file descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes live for the call and have the given size; the kernel checks the rest.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just created this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
