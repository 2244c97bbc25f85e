use std::collections::BTreeSet;
use std::sync::mpsc;

use parking_lot::Mutex;

use super::fake::{Fake, Room, every_method};
use super::*;
use crate::{
    Access, Behaviours, CopyRange, Errno, FileLock, HandleId, LockFlavour, LockKind, LockOwner,
    Name, NodeId, OpenFlags, Release, Reply, SliceSink, SliceSource, WriteFlags,
};

/// The methods declared in the block that `opening` begins and a brace at the margin ends.
fn methods<'a>(text: &'a str, opening: &str) -> BTreeSet<&'a str> {
    let block = text.split_once(opening).expect("the block is there").1;
    let block = block.split_once("\n}\n").expect("and it ends").0;
    block
        .lines()
        .filter_map(|line| line.strip_prefix("    fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect()
}

fn trait_methods() -> BTreeSet<&'static str> {
    methods(include_str!("../filesystem.rs"), "pub trait DynFileSystem")
}

const FORWARD: &str = include_str!("forward.rs");
const IMPL: &str = "DynFileSystem for Intercepted<I>";

#[test]
fn every_method_of_the_trait_is_forwarded() {
    assert!(trait_methods().len() >= 49, "the scan finds the trait's methods");
    assert_eq!(methods(FORWARD, IMPL), trait_methods());
    let fake = methods(include_str!("fake.rs"), "DynFileSystem for Fake");
    assert_eq!(fake, trait_methods(), "the fake has no default either");
}

#[test]
fn a_method_left_out_of_the_forwarding_is_noticed() {
    let without = FORWARD.replace("    fn set_inode_flags", "    fn renamed");
    let missing = trait_methods();
    let missing: Vec<_> = missing.difference(&methods(&without, IMPL)).copied().collect();
    assert_eq!(missing, ["set_inode_flags"]);
}

/// An intercept that notes what it is told, and does what it is set to.
#[derive(Default)]
struct Notes {
    log: Mutex<Vec<String>>,
    refuse: Option<OpKind>,
    limit: Option<u64>,
    sees_data: bool,
}

impl Notes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }
}

impl Intercept for Notes {
    type Mark = Option<&'static str>;

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<Self::Mark> {
        self.log.lock().push(format!("before {}", op.name()));
        if self.refuse == Some(op.kind()) { Err(Errno::EDQUOT) } else { Ok(Some(op.name())) }
    }

    fn after(&self, cx: &Context<'_>, op: &Op<'_>, mark: Self::Mark, outcome: &Outcome<'_>) {
        let answer = match outcome {
            Ok(Answer::Bytes(bytes)) => format!("{bytes} bytes"),
            Ok(Answer::Listed(entries)) => format!("{entries} entries"),
            Ok(answer) => format!(
                "{:?} {:?}",
                answer.entry().map(|entry| entry.node.0),
                answer.opened().map(|opened| opened.handle.0)
            ),
            Err(errno) => format!("{errno:?}"),
        };
        self.log.lock().push(format!("after {} {mark:?} of {}: {answer}", op.name(), cx.pid));
    }

    fn listed(&self, _: &Context<'_>, _: &Op<'_>, entry: &DirEntry<'_>, plus: Option<&Entry>) {
        let name = entry.name.escape_ascii();
        self.log.lock().push(format!("listed {name} {:?}", plus.map(|entry| entry.node.0)));
    }

    fn limit(&self, _: &Context<'_>, _: &Op<'_>, size: u64) -> u64 {
        self.limit.unwrap_or(size)
    }

    fn sees_data(&self) -> bool {
        self.sees_data
    }
}

/// The fake behind `notes`.
fn noted(notes: Notes) -> (Arc<Fake>, Intercepted<Notes>) {
    let fake = Arc::new(Fake::default());
    let fs = Intercepted::new(Arc::<Fake>::clone(&fake), notes);
    (fake, fs)
}

fn cx() -> Context<'static> {
    Context::new(5, None)
}

#[test]
fn every_method_reaches_the_filesystem_once_and_unchanged() {
    let direct = Fake::default();
    let answers = every_method(&direct);
    let (fake, fs) = noted(Notes::default());
    assert_eq!(every_method(&fs), answers);
    assert_eq!(fake.calls(), direct.calls());

    let mut called: Vec<_> = direct.methods();
    called.sort_unstable();
    let mut expected: Vec<_> = trait_methods().into_iter().collect();
    expected.retain(|method| *method != "features");
    assert_eq!(called, expected, "the client here calls every method once");
}

#[test]
fn every_request_is_told_before_and_after_once() {
    let (_, fs) = noted(Notes::default());
    every_method(&fs);
    let log = fs.intercept().take();
    for kind in OpKind::ALL {
        let name = kind.name();
        let forget = matches!(kind, OpKind::Forget | OpKind::BatchForget);
        let before = log.iter().filter(|line| **line == format!("before {name}")).count();
        assert_eq!(before, usize::from(!forget), "{name}");
        let mark = (!forget).then_some(name);
        let after = format!("after {name} {mark:?} of {}: ", if forget { 0 } else { 1001 });
        assert_eq!(log.iter().filter(|line| line.starts_with(&after)).count(), 1, "{name}");
    }
}

#[test]
fn every_request_of_the_trait_has_an_operation_of_its_name() {
    let names: BTreeSet<_> = OpKind::ALL.iter().map(|kind| kind.name()).collect();
    let lifecycle = BTreeSet::from([
        "features",
        "init",
        "destroy",
        "attach",
        "mapping_source",
        "persistent_id",
        "capture_state",
        "restore_state",
    ]);
    assert_eq!(names, trait_methods().difference(&lifecycle).copied().collect());
    for (place, kind) in OpKind::ALL.iter().enumerate() {
        assert_eq!(*kind as usize, place);
    }
}

#[test]
fn before_that_refuses_keeps_the_request_from_the_filesystem() {
    for kind in OpKind::ALL {
        let (fake, fs) = noted(Notes { refuse: Some(*kind), ..Notes::default() });
        let answers = every_method(&fs);
        let passes = matches!(
            kind,
            OpKind::Forget | OpKind::BatchForget | OpKind::Release | OpKind::Releasedir
        );
        assert_eq!(fake.methods().contains(&kind.name()), passes, "{kind:?}");
        let answer = answers.iter().find(|(method, _)| *method == kind.name());
        assert!(answer.is_none_or(|(_, answer)| answer.starts_with("Err(EDQUOT)")), "{answer:?}");
        let after = format!("after {} ", kind.name());
        assert_eq!(fs.intercept().take().iter().any(|line| line.starts_with(&after)), passes);
    }
}

#[test]
fn release_that_is_refused_is_made_and_answers_the_refusal() {
    let (fake, fs) = noted(Notes { refuse: Some(OpKind::Release), ..Notes::default() });
    let answer = fs.release(&cx(), NodeId(2), HandleId(3), Release::default());
    assert_eq!(answer, Err(Errno::EDQUOT));
    assert_eq!(fake.methods(), ["release"]);
    assert_eq!(fs.intercept().take(), ["before release", "after release None of 5: EDQUOT"]);
}

#[test]
fn after_sees_lookups_handles_and_bytes() {
    let (_, fs) = noted(Notes::default());
    let name = Name::new(b"a").unwrap();
    fs.create(&cx(), NodeId(2), name, 0o644, OpenFlags::READ_WRITE, false).unwrap();
    fs.forget(NodeId(67), 1);
    fs.read(&cx(), NodeId(2), HandleId(3), 0, 4, &mut SliceSink::new(&mut [0; 4])).unwrap();
    assert_eq!(
        fs.intercept().take(),
        [
            "before create",
            "after create Some(\"create\") of 5: Some(67) Some(72)",
            "after forget None of 0: None None",
            "before read",
            "after read Some(\"read\") of 5: 4 bytes",
        ]
    );
}

#[test]
fn readdirplus_tells_only_what_the_sink_took() {
    let (_, fs) = noted(Notes::default());
    fs.readdirplus(&cx(), NodeId(2), HandleId(3), 0, &mut Room(1, Vec::new())).unwrap();
    assert_eq!(
        fs.intercept().take(),
        [
            "before readdirplus",
            "listed first Some(91)",
            "after readdirplus Some(\"readdirplus\") of 5: 1 entries",
        ]
    );
}

#[test]
fn limit_shortens_reads_writes_and_copies_but_never_lengthens_them() {
    for (limit, expected) in [(0, 0), (2, 2), (u64::MAX, 4)] {
        let (_, fs) = noted(Notes { limit: Some(limit), ..Notes::default() });
        let mut buf = [0; 4];
        let mut sink = SliceSink::new(&mut buf);
        assert_eq!(fs.read(&cx(), NodeId(2), HandleId(3), 0, 4, &mut sink), Ok(expected));
        assert_eq!(sink.filled(), expected);
        let mut source = SliceSource::new(b"data and more");
        let flags = WriteFlags::empty();
        let written = fs.write(&cx(), NodeId(2), HandleId(3), 0, 4, flags, &mut source);
        assert_eq!(written, Ok(expected));
        let range = CopyRange::new(NodeId(2), HandleId(3), 0);
        assert_eq!(fs.copy_file_range(&cx(), range, range, 4), Ok(expected));
    }
}

#[test]
fn sees_data_withholds_every_backing_file() {
    let backing = || Arc::new(Fake::lending());
    let name = Name::new(b"a").unwrap();
    let offers = |fs: &dyn DynFileSystem| {
        let flags = OpenFlags::READ_WRITE;
        [
            fs.open(&cx(), NodeId(2), flags, false).unwrap().backing.is_some(),
            fs.create(&cx(), NodeId(2), name, 0, flags, false).unwrap().1.backing.is_some(),
            fs.tmpfile(&cx(), NodeId(2), 0, flags).unwrap().1.backing.is_some(),
            fs.opendir(&cx(), NodeId(2), flags).unwrap().backing.is_some(),
            fs.mapping_source(NodeId(2), Access::Read).is_some(),
            fs.features().bears(Behaviours::PASSTHROUGH),
        ]
    };
    assert_eq!(offers(&Intercepted::new(backing(), Notes::default())), [true; 6]);
    let seeing = Notes { sees_data: true, ..Notes::default() };
    assert_eq!(offers(&Intercepted::new(backing(), seeing)), [false; 6]);
}

#[test]
fn setlkw_answered_later_is_told_when_the_reply_is_sent() {
    let fake = Arc::new(Fake { park: true, ..Fake::default() });
    let fs = Intercepted::new(Arc::<Fake>::clone(&fake), Notes::default());
    let lock = FileLock::new(LockKind::Read, 0, 1, 5);
    let (tx, rx) = mpsc::channel();
    let reply = Reply::new(move |answer| tx.send(answer).unwrap());
    let flock = LockFlavour::Flock;
    fs.setlkw(&cx(), NodeId(2), HandleId(3), LockOwner(4), lock, flock, reply);
    let intercept = Arc::clone(fs.intercept());
    drop(fs);
    assert_eq!(intercept.take(), ["before setlkw"]);
    let parked = fake.parked.lock().take().unwrap();
    std::thread::spawn(move || parked.send(Ok(()))).join().unwrap();
    assert_eq!(intercept.take(), ["after setlkw Some(\"setlkw\") of 5: None None"]);
    assert_eq!(rx.recv(), Ok(Ok(())));
}

#[test]
fn setlkw_whose_reply_is_lost_is_told_as_eio() {
    let fake = Arc::new(Fake { park: true, ..Fake::default() });
    let fs = Intercepted::new(Arc::<Fake>::clone(&fake), Notes::default());
    let lock = FileLock::new(LockKind::Read, 0, 1, 5);
    let (tx, rx) = mpsc::channel();
    let reply = Reply::new(move |answer| tx.send(answer).unwrap());
    let flock = LockFlavour::Flock;
    fs.setlkw(&cx(), NodeId(2), HandleId(3), LockOwner(4), lock, flock, reply);
    drop(fake.parked.lock().take());
    let log = fs.intercept().take();
    assert_eq!(log, ["before setlkw", "after setlkw Some(\"setlkw\") of 5: EIO"]);
    assert_eq!(rx.recv(), Ok(Err(Errno::EIO)));
}

#[test]
fn op_names_its_nodes() {
    let (name, other) = (Name::new(b"a").unwrap(), Name::new(b"b").unwrap());
    let rename = Op::Rename {
        parent: NodeId(2),
        name,
        new_parent: NodeId(3),
        new_name: other,
        flags: crate::RenameFlags::empty(),
    };
    assert_eq!((rename.node(), rename.other_node()), (Some(NodeId(2)), Some(NodeId(3))));
    assert_eq!(rename.entry_name(), Some(name));
    let from = CopyRange::new(NodeId(4), HandleId(5), 0);
    let to = CopyRange::new(NodeId(6), HandleId(7), 0);
    let copy = Op::CopyFileRange { from, to, len: 1 };
    assert_eq!((copy.node(), copy.other_node()), (Some(NodeId(4)), Some(NodeId(6))));
    assert_eq!(copy.handle(), Some(HandleId(5)));
    assert_eq!(Op::BatchForget { nodes: &[] }.node(), None);
}
