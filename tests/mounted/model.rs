//! Random operations on mounted filesystems and on a plain model.

use stratafs_memfs::MemFs;
use stratafs_testkit::{ModelRun, Stress};

use crate::served::Served;

#[test]
fn memfs_agrees_with_the_model() {
    let Some(served) = Served::new("mounted memfs", MemFs::builder()) else { return };
    ModelRun::from_env().run(served.stack()).unwrap_or_else(|found| panic!("{found}"));
    served.end();
}

#[test]
fn memfs_under_threads_gives_everything_back() {
    let Some(served) = Served::new("mounted memfs", MemFs::builder()) else { return };
    Stress::from_env().run(served.stack()).unwrap_or_else(|found| panic!("{found}"));
    served.end();
}
