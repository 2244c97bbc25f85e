//! The conformance map, tested: it sees the mistakes that filesystems of this kind make.
//!
//! [`Planted`] is a filesystem with one mistake put before it. For each there is a case that passes
//! without it and must fail with it.

mod fs;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Added, Context, DirEntry, DirSink, DynFileSystem, Entry, FileType, HandleId, Name, NodeId,
    OpenFlags, Result, SetAttr, StatFs, TimedAttr,
};
use stratafs_memfs::MemFs;
use stratafs_testkit::{Case, Listed, ModelRun, Stack, Stress, cases, check_tree};

use crate::conformance::CAPACITY;

macro_rules! bugs {
    ($($bug:ident => $case:ident,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            None,
            $($bug,)*
        }

        /// Each mistake, and a case that sees it.
        const BUGS: &[(Bug, &str)] = &[$((Bug::$bug, stringify!($case)),)*];
    };
}

bugs! {
    AppendIgnored => append_ignores_the_offset,
    ChownKeepsSetuid => chown_clears_setuid_and_setgid,
    CookiesArePositions => readdir_while_deleting_everything_sees_everything,
    CopyIgnoresOffset => copy_range_at_offsets_keeps_what_is_around,
    CreateChangesMode => create_of_an_existing_name_keeps_its_mode,
    DeviceNumberCut => mknod_of_a_large_device_number_keeps_all_its_bits,
    DirectoryTimesKept => mkdir_and_rmdir_set_the_times_of_the_directory,
    ExclusiveIgnored => create_exclusive_of_an_existing_file_returns_eexist,
    ForgetsNothing => unlink_of_a_file_removes_its_name,
    ForgetsTooMuch => node_stays_usable_until_its_last_lookup_is_forgotten,
    FsyncIsEnosys => fsync_of_a_file_works,
    KillPrivIgnored => write_by_a_user_clears_setuid_and_setgid,
    LinkCountsOne => link_of_a_file_gives_it_a_second_name,
    LookupCountsTwice => stat_twice_shows_one_inode_number,
    LookupInFileIsAbsent => lookup_in_a_file_returns_enotdir,
    PanicsOnUnknownNode => unknown_node_answers_estale,
    PunchHoleDoesNothing => punch_hole_reads_as_zeros,
    ReaddirRepeats => readdir_one_entry_at_a_time_shows_each_once,
    ReaddirSkips => readdir_of_a_thousand_entries_shows_each_once,
    ReaddirWrongIno => readdir_shows_the_inode_numbers_of_stat,
    ReaddirplusKeepsReferences => readdirplus_into_a_full_sink_keeps_no_reference,
    ReadIsShort => read_of_a_megabyte_in_one_call_is_whole,
    ReleasesNothing => unlink_of_an_open_file_gives_its_space_back_at_close,
    RenameIgnoresExchange => rename_exchange_of_two_files_swaps_them,
    RenameIgnoresNoreplace => rename_noreplace_over_a_file_returns_eexist,
    RenameInTwoSteps => rename_over_a_file_never_shows_it_absent,
    RenameLosesHardLink => rename_between_names_of_one_file_does_nothing,
    RmdirRemovesFull => rmdir_of_a_full_directory_returns_enotempty,
    SeekSeesNoHoles => seek_finds_the_hole_between_two_data,
    SetgidDirectoryIgnored => setgid_directory_gives_group_and_bit_to_a_directory,
    StatfsNeverChanges => statfs_goes_down_with_data_and_comes_back,
    SymlinkTargetCut => symlink_of_4095_bytes_keeps_them,
    TruncateOnlyExtends => truncate_to_shorter_cuts_the_data,
    UmaskIgnored => create_applies_the_umask,
    UnlinkLosesOpenFiles => unlink_of_an_open_file_keeps_its_data,
    UnlinkRemovesDirectories => unlink_of_a_directory_returns_eisdir,
    UtimensInSeconds => utimens_sets_both_times_to_the_nanosecond,
    XattrIsCut => getxattr_with_too_little_room_returns_erange,
    XattrModeIgnored => setxattr_create_over_an_existing_name_returns_eexist,
    ZeroWriteExtends => write_of_zero_bytes_behind_the_end_does_not_extend,
}

fn stack(bug: Bug) -> Stack {
    let fs = MemFs::builder().capacity(CAPACITY).build().unwrap();
    Stack::in_process(format!("{bug:?}"), Arc::new(Planted::new(Arc::new(fs), bug)))
}

fn case(name: &str) -> &'static Case {
    cases().iter().find(|case| case.name == name).unwrap()
}

#[test]
fn conformance_map_sees_every_planted_bug() {
    let unseen: Vec<_> = BUGS
        .iter()
        .filter(|(bug, name)| !stack(*bug).run_cases([case(name)]).has_failed(name))
        .collect();
    assert!(unseen.is_empty(), "not seen: {unseen:?}");
}

#[test]
fn conformance_map_sees_nothing_where_no_bug_is_planted() {
    stack(Bug::None).run().assert_passed();
}

#[test]
fn model_sees_planted_bugs_and_cuts_the_lists_down() {
    for bug in [
        Bug::AppendIgnored,
        Bug::CopyIgnoresOffset,
        Bug::CreateChangesMode,
        Bug::ExclusiveIgnored,
        Bug::ForgetsNothing,
        Bug::LinkCountsOne,
        Bug::PunchHoleDoesNothing,
        Bug::ReaddirRepeats,
        Bug::RenameIgnoresExchange,
        Bug::RenameIgnoresNoreplace,
        Bug::RenameLosesHardLink,
        Bug::RmdirRemovesFull,
        Bug::SymlinkTargetCut,
        Bug::TruncateOnlyExtends,
        Bug::UnlinkLosesOpenFiles,
        Bug::UnlinkRemovesDirectories,
        Bug::UtimensInSeconds,
        Bug::XattrModeIgnored,
    ] {
        let run = ModelRun { lists: 500, ..ModelRun::default() };
        let found = run.run(&stack(bug)).expect_err(&format!("{bug:?} is not seen"));
        assert!(found.ops.len() <= 6, "{bug:?} takes six operations at the most: {found}");
    }
}

#[test]
fn stress_sees_what_is_never_given_back() {
    let run = Stress { operations: 300, ..Stress::default() };
    let found = run.run(&stack(Bug::ForgetsNothing)).unwrap_err().to_string();
    assert!(found.contains("blocks and inodes in use"), "{found}");
}

#[test]
fn check_tree_sees_link_counts_and_inode_numbers_that_are_wrong() {
    for (bug, word) in [(Bug::LinkCountsOne, "nlink"), (Bug::ReaddirWrongIno, "ino")] {
        let stack = stack(bug);
        let client = stack.client();
        let fd = client.create(b"a", OpenFlags::READ_WRITE, 0o644).unwrap();
        client.close(fd).unwrap();
        client.link(b"a", b"b").unwrap();
        let found = check_tree(&**client, b"").unwrap_err().to_string();
        assert!(found.contains(word), "{found}");
    }
}

/// A filesystem with a mistake before it.
pub(crate) struct Planted {
    inner: Arc<dyn DynFileSystem>,
    bug: Bug,
    removed: Mutex<HashSet<NodeId>>,
    statfs: Mutex<Option<StatFs>>,
}

impl Planted {
    pub(crate) fn new(inner: Arc<dyn DynFileSystem>, bug: Bug) -> Self {
        Self { inner, bug, removed: Mutex::default(), statfs: Mutex::default() }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    /// The node that `name` leads to, without a reference.
    fn peek(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<NodeId> {
        let entry = self.inner.lookup(cx, parent, name)?.found()?;
        self.inner.forget(entry.node, 1);
        Ok(entry.node)
    }

    fn context<'c>(&self, cx: &Context<'c>) -> Context<'c> {
        if self.is(Bug::UmaskIgnored) { cx.with_umask(0) } else { *cx }
    }

    fn shown(&self, mut entry: Entry) -> Entry {
        if self.is(Bug::LinkCountsOne) && entry.attr.kind() == FileType::Regular {
            entry.attr.nlink = 1;
        }
        entry
    }

    fn set_mode(&self, cx: &Context<'_>, node: NodeId, mode: u32) -> Result<TimedAttr> {
        let mut set = SetAttr::new();
        set.mode = Some(mode);
        self.inner.setattr(cx, node, &set)
    }

    /// All entries of a listing.
    fn all(&self, cx: &Context<'_>, node: NodeId, handle: HandleId) -> Result<Vec<Listed>> {
        struct All(Vec<Listed>);
        impl DirSink for All {
            fn fits(&self, _: usize) -> bool {
                true
            }
            fn add(&mut self, entry: &DirEntry<'_>, _: Option<&Entry>) -> Added {
                let DirEntry { ino, kind, name, cookie, .. } = *entry;
                self.0.push(Listed { ino, kind, name: name.to_vec(), cookie });
                Added::Taken
            }
        }
        let mut all = All(Vec::new());
        self.inner.readdir(cx, node, handle, 0, &mut all)?;
        Ok(all.0)
    }

    fn list_by_position(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        for (i, listed) in self.all(cx, node, handle)?.iter().enumerate() {
            let position = i as u64 + 1;
            if position <= cookie {
                continue;
            }
            let mut entry = DirEntry::dot(listed.ino, position);
            (entry.kind, entry.name) = (listed.kind, &listed.name);
            if sink.add(&entry, None) == Added::Full {
                break;
            }
        }
        Ok(())
    }

    fn remove_children(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        let dir = self.peek(cx, parent, name)?;
        let opened = self.inner.opendir(cx, dir, OpenFlags::READ_ONLY)?;
        for child in self.all(cx, dir, opened.handle)? {
            if let Ok(child) = Name::new(&child.name) {
                self.inner.unlink(cx, dir, child)?;
            }
        }
        self.inner.releasedir(cx, dir, opened.handle)
    }
}

/// A sink with a mistake before it.
struct PlantedSink<'s> {
    sink: &'s mut dyn DirSink,
    bug: Bug,
    repeated: bool,
}

impl DirSink for PlantedSink<'_> {
    fn fits(&self, name_len: usize) -> bool {
        self.sink.fits(name_len)
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        let mut shown = *entry;
        match self.bug {
            Bug::ReaddirSkips if entry.ino.is_multiple_of(7) => return Added::Taken,
            Bug::ReaddirWrongIno => shown.ino += 1000,
            Bug::ReaddirRepeats if !self.repeated && entry.entry_name().is_some() => {
                self.repeated = true;
                if self.sink.add(&shown, plus) == Added::Full {
                    return Added::Full;
                }
                // Of two, one is offered under the place of the one before it.
                shown.cookie -= 1;
            }
            _ => {}
        }
        let added = self.sink.add(&shown, plus);
        if self.bug == Bug::ReaddirplusKeepsReferences { Added::Taken } else { added }
    }
}
