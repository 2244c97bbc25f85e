//! Which CPU a thread may use, runs on, or last ran on.

use crate::check;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A set of CPUs, as sched_setaffinity(2) takes it; up to 1024 of them.
#[derive(Clone, Copy)]
pub struct CpuSet(libc::cpu_set_t);

impl std::fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((0..Self::CAPACITY).filter(|cpu| self.contains(*cpu))).finish()
    }
}

impl PartialEq for CpuSet {
    fn eq(&self, other: &Self) -> bool {
        // SAFETY: both point at initialised sets.
        unsafe { libc::CPU_EQUAL(&self.0, &other.0) }
    }
}

impl Eq for CpuSet {}

impl CpuSet {
    /// CPUs numbered from here on cannot be named (the size of `cpu_set_t` in bits).
    pub const CAPACITY: usize = libc::CPU_SETSIZE.cast_unsigned() as usize;

    /// No CPU.
    #[must_use]
    pub fn empty() -> Self {
        // SAFETY: cpu_set_t is an array of integers, for which zero is a value.
        Self(unsafe { std::mem::zeroed() })
    }

    /// One CPU. A number from [`Self::CAPACITY`] on gives the empty set.
    #[must_use]
    pub fn one(cpu: usize) -> Self {
        let mut set = Self::empty();
        if cpu < Self::CAPACITY {
            // SAFETY: `cpu` is within the set, as just checked.
            unsafe { libc::CPU_SET(cpu, &mut set.0) };
        }
        set
    }

    /// Whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: usize) -> bool {
        // SAFETY: `cpu` is checked to be within the set first.
        cpu < Self::CAPACITY && unsafe { libc::CPU_ISSET(cpu, &self.0) }
    }

    /// How many CPUs are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: the set is initialised.
        usize::try_from(unsafe { libc::CPU_COUNT(&self.0) }).unwrap_or(0)
    }

    /// No CPU is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The CPUs that the calling thread may use.
///
/// # Errors
/// `EINVAL`: the machine has more CPUs than [`CpuSet::CAPACITY`].
pub fn current() -> io::Result<CpuSet> {
    let mut set = CpuSet::empty();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the pointer and size describe `set`; pid 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size, &mut set.0) })?;
    Ok(set)
}

/// Restricts the calling thread, and no other, to `set`.
///
/// # Errors
/// `EINVAL`: no CPU of `set` is online and allowed to this process.
pub fn restrict(set: &CpuSet) -> io::Result<()> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the pointer and size describe `set`; pid 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size, &set.0) })?;
    Ok(())
}

/// The CPU that the calling thread is running on; stale as soon as it is known.
///
/// # Errors
/// `ENOSYS`: the architecture does not say.
pub fn running_on() -> io::Result<usize> {
    // SAFETY: the call takes no arguments.
    let cpu = check(unsafe { libc::sched_getcpu() })?;
    Ok(cpu.cast_unsigned() as usize)
}

/// A thread whose last CPU is asked for again and again.
///
/// It keeps `/proc/TID/stat` open: a read through an open file costs a third of opening it again.
/// A thread that exits makes the reads fail with `ESRCH`, also when its number is reused.
#[derive(Debug)]
pub struct LastCpu(File);

impl LastCpu {
    /// Opens the record of the thread `tid`, a number of this process's PID namespace.
    ///
    /// # Errors
    /// * `ENOENT`: there is no such thread.
    /// * `EACCES`, `EPERM`: `/proc` hides it.
    pub fn open(tid: u32) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{tid}/stat"))?))
    }

    /// The CPU that the thread runs on or ran on last.
    ///
    /// # Errors
    /// * `ESRCH`: the thread exited.
    /// * `InvalidData`: the record has no such field.
    pub fn get(&self) -> io::Result<usize> {
        let mut text = [0; 1024];
        let n = self.0.read_at(&mut text, 0)?;
        text.get(..n)
            .and_then(parse_last_cpu)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CPU in /proc/TID/stat"))
    }
}

/// Field 39 of `/proc/PID/stat`, `processor`, see proc_pid_stat(5).
///
/// The second field is the command's name in parentheses and may itself hold spaces and
/// parentheses, so fields are counted from the last one.
fn parse_last_cpu(stat: &[u8]) -> Option<usize> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let field = stat.get(name_end + 1..)?.split(|&byte| byte == b' ').nth(39 - 2)?;
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_last_cpu_with_hostile_name_counts_from_the_last_parenthesis() {
        let mut line = b"12 (a) b (c) R".to_vec();
        for field in 4..=52 {
            line.extend_from_slice(format!(" {field}").as_bytes());
        }
        assert_eq!(parse_last_cpu(&line), Some(39));
        assert_eq!(parse_last_cpu(b"12 (x) R 1 2"), None);
        assert_eq!(parse_last_cpu(b""), None);
    }

    #[test]
    fn last_cpu_of_a_restricted_thread_is_the_one_it_may_use() {
        std::thread::spawn(|| {
            let cpu = (0..CpuSet::CAPACITY).find(|cpu| current().unwrap().contains(*cpu)).unwrap();
            restrict(&CpuSet::one(cpu)).unwrap();
            assert_eq!(running_on().unwrap(), cpu);
            // SAFETY: gettid takes no arguments.
            let tid = unsafe { libc::gettid() }.cast_unsigned();
            assert_eq!(LastCpu::open(tid).unwrap().get().unwrap(), cpu);
            assert_eq!(current().unwrap(), CpuSet::one(cpu));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn restrict_to_no_cpu_is_refused() {
        assert_eq!(restrict(&CpuSet::empty()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert!(CpuSet::one(CpuSet::CAPACITY).is_empty());
    }
}
