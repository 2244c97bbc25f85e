//! Mounted host directories: one whose server is root and applies owners for real, and one whose server
//! became another user and keeps them in an extended attribute.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::pjdfstest::{self, Comparison};
use super::{Tally, private_ext4};
use crate::process::run_checked;
use crate::target::{Ext4, Image, Scratch, Target};

/// Whom the second server becomes.
const USER: &str = "nobody";

/// What a mount of fsx is told beyond its directory.
const FSX: [&str; 3] = ["", ", writeback", ", exclusive, open=stateless"];
pub(super) const FSX_CASES: usize = FSX.len();

pub(super) fn pjdfstest(program: &Path, scratch: &Scratch) -> Result<Tally> {
    let Some(ext4) = private_ext4(scratch, "host") else {
        return Ok(Tally { skipped: 2 * pjdfstest::TESTS + 1, ..Tally::default() });
    };
    let reference = Image::ext4(scratch, "reference-image", super::EXT4_GIB)?;
    let spec = format!("passthrough({}, ownership=host)", ext4.directory("root")?.display());
    let host = Target::stratafs(program, spec);
    let (plain, owned) = dropped(program, &ext4, scratch)?;
    // ext4 passes each of them where this was written.
    let mut tally = pjdfstest::run(
        &Comparison {
            reference: (reference.target(), pjdfstest::TESTS - 10),
            targets: vec![("host", &host), ("virtual", &owned)],
            skipped: &[(
                "link::link_count_max",
                "the C library knows a limit of links by the type of the filesystem, and none for FUSE",
            )],
        },
        scratch,
    )?;
    let case = "the host holds plain files and directories of the server's user";
    tally.count(case, leaves_plain_files(&plain, &owned, scratch));
    Ok(tally)
}

/// A directory of [`USER`] and a mount of it whose server becomes that user.
fn dropped(program: &Path, ext4: &Ext4, scratch: &Scratch) -> Result<(PathBuf, Target)> {
    let directory = ext4.directory("plain")?;
    let mut own = Command::new("chown");
    own.arg(USER).arg(&directory);
    run_checked(&mut own, &scratch.file("chown.log"), Duration::from_secs(30))?;
    let target = Target::Stratafs {
        program: program.to_owned(),
        spec: format!("passthrough({}, ownership=virtual)", directory.display()),
        options: "setuid=nobody",
    };
    Ok((directory, target))
}

/// What pjdfstest makes it also removes; so here one of each kind is made, and stays.
fn leaves_plain_files(host: &Path, target: &Target, scratch: &Scratch) -> Result<()> {
    let mounted = target.mount(scratch, "left")?;
    let top = mounted.path();
    let make = |words: &[&str]| -> Result<()> {
        let mut mknod = Command::new(words[0]);
        mknod.args(&words[1..]).current_dir(top);
        run_checked(&mut mknod, &scratch.file("mknod.log"), Duration::from_secs(30)).map(drop)
    };
    make(&["mknod", "null", "c", "1", "3"])?;
    make(&["mknod", "whiteout", "c", "0", "0"])?;
    make(&["mknod", "disk", "b", "7", "0"])?;
    make(&["mkfifo", "fifo"])?;
    symlink("null", top.join("link"))?;
    for (name, mode) in [("setuid", 0o6755), ("nothing", 0o000)] {
        fs::write(top.join(name), name)?;
        chown(top.join(name), Some(1), Some(2))?;
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode))?;
    }
    fs::create_dir(top.join("sticky"))?;
    fs::set_permissions(top.join("sticky"), fs::Permissions::from_mode(0o3777))?;
    let seen = fs::symlink_metadata(top.join("setuid"))?;
    ensure!(
        (seen.uid(), seen.gid(), seen.mode() & 0o7777) == (1, 2, 0o6755),
        "the mount shows the owner and mode {}:{} {:o}",
        seen.uid(),
        seen.gid(),
        seen.mode()
    );
    ensure!(fs::symlink_metadata(top.join("null"))?.file_type().is_char_device(), "no device");
    mounted.unmount()?;
    let user = fs::symlink_metadata(host)?.uid();
    let entries = only_plain(host, user)?;
    ensure!(entries >= 8, "the host holds {entries} entries where 8 were made");
    Ok(())
}

/// Counts what is under a directory, all of which must be plain and `user`'s.
fn only_plain(directory: &Path, user: u32) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        let plain = found.is_file() || found.is_dir();
        ensure!(plain, "{} is a {:?}", path.display(), found.file_type());
        ensure!(found.uid() == user, "{} is of the user {}", path.display(), found.uid());
        let special = found.mode() & 0o7000;
        ensure!(special == 0, "{} has the special bits {special:o}", path.display());
        count += 1;
        if found.is_dir() {
            count += only_plain(&path, user).with_context(|| path.display().to_string())?;
        }
    }
    Ok(count)
}

/// Each form of the mount, on a directory of its own.
pub(super) fn fsx(program: &Path, scratch: &Scratch, first: u64, operations: u64) -> Result<Tally> {
    let Some(ext4) = private_ext4(scratch, "host") else {
        return Ok(Tally { skipped: FSX_CASES, ..Tally::default() });
    };
    let mut tally = Tally::default();
    for (seed, more) in (first..).zip(FSX) {
        let directory = ext4.directory(&format!("seed{seed}"))?;
        let target =
            Target::stratafs(program, format!("passthrough({}{more})", directory.display()));
        tally += super::exercise(&target, scratch, seed, operations)?;
    }
    Ok(tally)
}
