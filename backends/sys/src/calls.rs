//! The system calls that a server makes once it serves, by their numbers: what a filter of system
//! calls allows.
//!
//! Made from what the wrappers of this crate, the standard library and the C library call, and checked
//! by tests that serve everything under a filter. What prepares serving is not among them: sockets
//! are bound, directories opened by path, and privileges given up before.

use libc::c_long;

/// Calls of every processor, whatever their arguments.
pub const ALWAYS: &[c_long] = &[
    // Objects and directories.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_name_to_handle_at,
    // Extended attributes; the last four are setxattrat and its kin, the same everywhere.
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_listxattr,
    libc::SYS_removexattr,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    463,
    464,
    465,
    466,
    // Data.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_copy_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_fcntl,
    // The client: a connection on a socket that was bound before, messages, kicks.
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads, time, signals, the end.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What the C library calls on x86-64, where newer processors have the call with more arguments
/// alone.
#[cfg(target_arch = "x86_64")]
pub const ALSO_HERE: &[c_long] = &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_unlink];

/// Nothing: what the C library calls elsewhere has all its arguments.
#[cfg(not(target_arch = "x86_64"))]
pub const ALSO_HERE: &[c_long] = &[];

/// Calls that do several things by an argument, its number, and the values that are served with.
pub const BY_ARGUMENT: &[(c_long, u8, &[u64])] = &[
    // FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_GETFSUUID, and FIONBIO, which makes a socket
    // blocking.
    (libc::SYS_ioctl, 1, &[0x8008_6601, 0x4008_6602, 0x8011_1500, 0x5421]),
    // PR_SET_NAME, of threads, and PR_SET_VMA, of the allocator's memory.
    (libc::SYS_prctl, 0, &[15, 0x5356_4d41]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_allowed_twice_and_none_that_gets_a_server_out() {
        let mut all: Vec<c_long> = ALWAYS.iter().chain(ALSO_HERE).copied().collect();
        all.extend(BY_ARGUMENT.iter().map(|(call, ..)| *call));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_open_tree,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_chroot,
            libc::SYS_open_by_handle_at,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_setresuid,
            libc::SYS_kill,
        ] {
            assert!(!all.contains(&call), "{call}");
        }
    }

    #[test]
    fn requests_of_ioctl_are_those_that_are_made() {
        let requests = BY_ARGUMENT[0].2;
        for request in [libc::FS_IOC_GETFLAGS, libc::FS_IOC_SETFLAGS, libc::FIONBIO] {
            assert!(requests.contains(&request), "{request:#x}");
        }
    }
}
