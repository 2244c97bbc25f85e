//! Capabilities: what a thread may do that takes privilege, and giving it up.

use crate::check;
use bitflags::bitflags;
use std::io;

bitflags! {
    /// Capabilities by their bits in the kernel's sets; capabilities(7). A set may hold others.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Capabilities: u64 {
        /// Change the owner of a file.
        const CHOWN = 1;
        /// Pass by permission bits.
        const DAC_OVERRIDE = 1 << 1;
        /// Read, and search directories, whatever their permission bits.
        const DAC_READ_SEARCH = 1 << 2;
        /// Do what only a file's owner may.
        const FOWNER = 1 << 3;
        /// Keep setuid and setgid bits where a change would clear them.
        const FSETID = 1 << 4;
        /// Take capabilities out of the bounding set.
        const SETPCAP = 1 << 8;
        /// chroot(2).
        const SYS_CHROOT = 1 << 18;
        /// Mounts, namespaces, `trusted.` attributes, and much else.
        const SYS_ADMIN = 1 << 21;
        /// Make device nodes.
        const MKNOD = 1 << 27;
        /// Give a file capabilities.
        const SETFCAP = 1 << 31;
    }
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct` of linux/capability.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two data structs, 64 bits.
const VERSION_3: u32 = 0x2008_0522;

/// The capabilities that the calling thread uses now.
///
/// # Errors
/// None is known.
pub fn effective() -> io::Result<Capabilities> {
    get().map(|[effective, _]| effective)
}

/// The capabilities that the calling thread may use.
///
/// # Errors
/// None is known.
pub fn permitted() -> io::Result<Capabilities> {
    get().map(|[_, permitted]| permitted)
}

/// Its effective and its permitted ones.
fn get() -> io::Result<[Capabilities; 2]> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: the header and two data structs, as version 3 wants them, live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(result)?;
    let [low, high] = data;
    let join = |low: u32, high: u32| {
        Capabilities::from_bits_retain(u64::from(low) | u64::from(high) << 32)
    };
    Ok([join(low.effective, high.effective), join(low.permitted, high.permitted)])
}

/// Gives up, for good, every capability of the calling thread that is not in `keep`; what is left.
/// Threads that it starts have no others.
///
/// # Errors
/// None is known: giving up takes no privilege.
///
/// # Source
/// capabilities(7), PR_CAPBSET_DROP(2const).
pub fn limit_to(keep: Capabilities) -> io::Result<Capabilities> {
    let has = permitted()?;
    // What a program started later could get. It takes a capability itself; without that one, a
    // process that gains no privileges by execve has nothing to fear from the set.
    if has.contains(Capabilities::SETPCAP) {
        for number in 0..64 {
            let is_kept = keep.bits() & 1 << number != 0;
            if !is_kept && drop_from_bounding(number).is_err() {
                // Beyond the last that this kernel knows.
                break;
            }
        }
    }
    // SAFETY: no pointers. A kernel without ambient capabilities has none to clear.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let left = has & keep;
    let [l0, l1, l2, l3, h0, h1, h2, h3] = left.bits().to_le_bytes();
    let half = |bits| Data { effective: bits, permitted: bits, inheritable: 0 };
    let data =
        [half(u32::from_le_bytes([l0, l1, l2, l3])), half(u32::from_le_bytes([h0, h1, h2, h3]))];
    let mut header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: the header and two data structs, as version 3 wants them, live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })?;
    Ok(left)
}

fn drop_from_bounding(number: libc::c_ulong) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_to_leaves_the_thread_what_it_had_of_the_set() {
        // Of this thread alone: the others of the test program keep theirs.
        let thread = std::thread::spawn(|| {
            let had = permitted().unwrap();
            let keep = Capabilities::CHOWN | Capabilities::FOWNER;
            assert_eq!(limit_to(keep).unwrap(), had & keep);
            assert_eq!(permitted().unwrap(), had & keep);
            assert_eq!(limit_to(Capabilities::all()).unwrap(), had & keep);
            assert_eq!(limit_to(Capabilities::empty()).unwrap(), Capabilities::empty());
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        });
        thread.join().unwrap();
    }
}
