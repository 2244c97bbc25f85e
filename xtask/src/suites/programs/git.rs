//! A repository made on the spot, cloned into the mount.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::DEADLINE;
use crate::process::run_checked;
use crate::target::Scratch;

const FILES: usize = 300;

/// Clones, compares, switches branches there and back, packs, checks every object.
pub(super) fn work(mount: &Path, scratch: &Scratch, name: &str) -> Result<()> {
    let git = |directory: &Path, args: &[&str]| -> Result<String> {
        let mut git = Command::new("git");
        // The owner's settings, and the environment of a hook, are not part of the test.
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(variable);
        }
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=Test", "-c", "user.email=test@example.org"]);
        git.current_dir(directory).args(args);
        run_checked(&mut git, &scratch.file(&format!("{name}-git.log")), DEADLINE)
    };
    let source = scratch.directory(&format!("{name}-source"))?;
    git(&source, &["init", "-q", "-b", "trunk"])?;
    write_tree(&source)?;
    git(&source, &["add", "."])?;
    git(&source, &["commit", "-q", "-m", "first"])?;
    git(&source, &["checkout", "-q", "-b", "side"])?;
    for index in (0..FILES).step_by(3) {
        fs::write(source.join(file_name(index)), format!("changed {index}\n"))?;
    }
    git(&source, &["commit", "-q", "-a", "-m", "second"])?;
    git(&source, &["checkout", "-q", "trunk"])?;

    let url = format!("file://{}", source.display());
    git(mount, &["clone", "-q", &url, "clone"])?;
    let clone = mount.join("clone");
    let unchanged = |when: &str| -> Result<()> {
        let status = git(&clone, &["status", "--porcelain"])?;
        ensure!(status.is_empty(), "{when}, git sees changes:\n{status}");
        Ok(())
    };
    unchanged("after the clone")?;
    for branch in ["side", "trunk"] {
        git(&clone, &["checkout", "-q", branch])?;
        unchanged("after a checkout")?;
    }
    git(&clone, &["gc", "-q", "--prune=now"])?;
    git(&clone, &["fsck", "--full", "--strict"])?;
    unchanged("after gc")?;

    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference", "-x", ".git"]).arg(&source).arg(&clone);
    run_checked(&mut diff, &scratch.file(&format!("{name}-diff.log")), DEADLINE)?;
    let mode = fs::metadata(clone.join("run.sh"))?.permissions().mode();
    ensure!(mode & 0o100 != 0, "the script lost its executable bit: {mode:o}");
    Ok(())
}

fn write_tree(top: &Path) -> Result<()> {
    for index in 0..FILES {
        let path = top.join(file_name(index));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Sizes from nothing to some pages, with a line of its own in each.
        fs::write(path, format!("line of file {index}\n").repeat(index * index % 700))?;
    }
    fs::write(top.join("run.sh"), "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(top.join("run.sh"), fs::Permissions::from_mode(0o755))?;
    symlink(file_name(0), top.join("link"))?;
    Ok(())
}

fn file_name(index: usize) -> String {
    format!("directory{}/inner{}/file{index}", index % 7, index % 3)
}
