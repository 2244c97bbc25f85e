//! Many threads at random on a few names, and a look at what they left.

use stratafs_core::{Errno, FallocateMode, OpenFlags, RenameFlags, Result, XattrMode};

use crate::consistency::check_tree;
use crate::world::remove_all;
use crate::{Capabilities, Failure, Stack, Verdict, World};

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stress {
    /// How many threads.
    pub threads: u64,
    /// How many operations each of them does.
    pub operations: u32,
    /// Where the random numbers start. The threads interleave as they like all the same.
    pub seed: u64,
}

impl Default for Stress {
    /// 4 threads, 3000 operations each: a second or two.
    fn default() -> Self {
        Self { threads: 4, operations: 3000, seed: 0 }
    }
}

impl Stress {
    /// The default, but for what `STRATAFS_STRESS_OPERATIONS` and `STRATAFS_STRESS_SEED` say.
    #[must_use]
    pub fn from_env() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let default = Self::default();
        Self {
            operations: number("STRATAFS_STRESS_OPERATIONS")
                .map_or(default.operations, |n: u64| u32::try_from(n).unwrap_or(u32::MAX)),
            seed: number("STRATAFS_STRESS_SEED").unwrap_or(default.seed),
            ..default
        }
    }

    /// Runs on `stack`. Each operation works or fails with an error that the others can have led
    /// to; in the end the tree is [consistent](check_tree), can be removed, and lookups, handles,
    /// blocks and inodes are given back.
    ///
    /// # Errors
    /// What is wrong, first of all.
    pub fn run(&self, stack: &Stack) -> Verdict {
        let outcome = std::thread::scope(|scope| scope.spawn(|| self.run_here(stack)).join());
        outcome.unwrap_or_else(|_| Err(Failure::nowhere("a panic")))
    }

    fn run_here(&self, stack: &Stack) -> Verdict {
        const DIR: &[u8] = b"stress";
        let client = &**stack.client();
        client.begin()?;
        let before = client.statfs()?;
        client.mkdir(DIR, 0o777)?;
        let world = World::new(client, DIR);
        let capabilities = stack.capabilities();
        let verdicts: Vec<Verdict> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|number| {
                    let random = Random(self.seed.wrapping_mul(1 << 20).wrapping_add(number));
                    let world = &world;
                    scope.spawn(move || work(world, capabilities, random, self.operations))
                })
                .collect();
            let panicked = || Err(Failure::nowhere("a thread panicked"));
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| panicked())).collect()
        });
        let left_open = client.end()?;
        let tree = match capabilities.contains(Capabilities::RACING_LINKS) {
            true => check_tree(client, DIR),
            false => Ok(()),
        };
        let removed = remove_all(client, DIR);
        verdicts.into_iter().collect::<Verdict>()?;
        tree?;
        removed?;
        if left_open > 0 {
            return Err(Failure::nowhere(format!("{left_open} files were left open")));
        }
        stack.leaks(&before)
    }
}

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// One of a few names in one of a few directories, which are such names themselves.
    fn path(&mut self) -> String {
        let levels = 1 + self.below(3);
        let names: Vec<_> = (0..levels).map(|_| ["a", "b", "c"][self.below(3) as usize]).collect();
        names.join("/")
    }
}

/// What others can lead to between two steps of an operation, or within it.
const EXPECTED: &[Errno] = &[
    Errno::ENOENT,
    Errno::EEXIST,
    Errno::ENOTDIR,
    Errno::EISDIR,
    Errno::ENOTEMPTY,
    Errno::EINVAL,
    Errno::ELOOP,
    Errno::EPERM,
    Errno::EXDEV,
    Errno::ENODATA,
    Errno::ENOSPC,
    Errno::ESTALE,
    Errno::ENXIO,
];

fn work(w: &World<'_>, has: Capabilities, mut random: Random, operations: u32) -> Verdict {
    for step in 0..operations {
        let kind = random.below(16);
        match operate(w, has, kind, &mut random) {
            Err(errno) if !EXPECTED.contains(&errno) => {
                let text = format!("step {step}, operation {kind}: {errno}");
                return Err(Failure::nowhere(text));
            }
            _ => {}
        }
    }
    Ok(())
}

fn operate(w: &World<'_>, has: Capabilities, kind: u64, random: &mut Random) -> Result<()> {
    let (path, other) = (random.path(), random.path());
    let number = random.below(20_000);
    match kind {
        0..=2 => {
            let fd = w.create(&path, OpenFlags::READ_WRITE, 0o644)?;
            let written = w.pwrite(fd, number, &[b'x'; 3000]).map(drop);
            w.close(fd).and(written)
        }
        3 => {
            let fd = w.open(&path, OpenFlags::READ_WRITE.with_append())?;
            let done = w.pwrite(fd, 0, b"appended").and_then(|_| w.ftruncate(fd, number));
            let punched = if has.contains(Capabilities::PUNCH_HOLE) {
                let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
                w.fallocate(fd, mode, number / 2, 5000)
            } else {
                Ok(())
            };
            w.close(fd).and(done).and(punched)
        }
        4 => w.mkdir(&path, 0o755),
        5 => w.rmdir(&path),
        6 | 7 => w.unlink(&path),
        8 | 9 => w.rename(&path, &other),
        10 if has.contains(Capabilities::EXCHANGE) => {
            w.rename2(&path, &other, RenameFlags::EXCHANGE)
        }
        11 if has.contains(Capabilities::HARD_LINKS) => w.link(&path, &other),
        12 if has.contains(Capabilities::SYMLINKS) => w.symlink("nowhere/at/all", &path),
        13 if has.contains(Capabilities::XATTR_USER) => {
            w.setxattr(&path, b"user.stress", &number.to_le_bytes(), XattrMode::Set)
        }
        14 => w.list(&path).map(drop),
        _ => w.read(&path).map(drop),
    }
}
