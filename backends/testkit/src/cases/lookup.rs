//! Finding objects, and the life of nodes: lookup, forget, ids. In process, but for what a path
//! shows.

use std::sync::Arc;

use stratafs_core::{
    Context, DynFileSystem, Errno, HandleId, Lookup, Name, NodeId, NodeRef, OpenFlags, Release,
    SliceSink,
};

use crate::case::case;
use crate::{Case, Family, InProcess, Verdict, World, equal, holds, refused};

const FAMILY: Family = Family::Lookup;

/// Why a case needs to speak to the filesystem itself.
const NODES: &str = "a kernel keeps nodes and lookup counts to itself";

pub(super) const CASES: &[Case] = &[
    case!(lookup_through_an_absent_directory_returns_enoent),
    case!(lookup_after_a_miss_sees_what_was_made),
    case!(lookup_after_a_hit_sees_what_was_removed),
    case!(lookup_of_an_absent_name_is_no_error).in_process(NODES),
    case!(lookup_in_a_file_returns_enotdir).in_process(NODES),
    case!(lookup_twice_gives_one_node).in_process(NODES),
    case!(lookup_by_two_hard_links_gives_one_node, HARD_LINKS).in_process(NODES),
    case!(lookup_gives_the_attributes_of_getattr).in_process(NODES),
    case!(lookup_and_creation_give_one_node).in_process(NODES),
    case!(node_stays_the_same_through_a_rename).in_process(NODES),
    case!(node_stays_usable_until_its_last_lookup_is_forgotten).in_process(NODES),
    case!(forget_of_more_than_was_given_stops_at_zero).in_process(NODES),
    case!(forget_of_the_root_does_nothing).in_process(NODES),
    case!(forget_of_an_unknown_node_does_nothing).in_process(NODES),
    case!(batch_forget_does_what_forget_does).in_process(NODES),
    case!(forget_while_open_keeps_the_handle_working).in_process(NODES),
    case!(unknown_node_answers_estale).in_process(NODES),
    case!(unknown_handle_answers_ebadf, HANDLES).in_process(NODES),
    case!(inode_number_used_again_has_another_generation).in_process(NODES),
    case!(node_ids_stay_below_the_promised_bits).in_process(NODES),
    case!(root_is_node_1_and_a_directory).in_process(NODES),
];

fn lookup_through_an_absent_directory_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.stat("absent/a/b"), Errno::ENOENT)
}

fn lookup_after_a_miss_sees_what_was_made(w: &World<'_>) -> Verdict {
    for i in 0..10 {
        let name = format!("f{i}");
        refused(w.stat(&name), Errno::ENOENT)?;
        w.file(&name, b"data")?;
        equal(w.read(&name)?, b"data", "the data")?;
    }
    refused(w.stat("target"), Errno::ENOENT)?;
    w.rename("f0", "target")?;
    equal(w.read("target")?, b"data", "the data at the name that was absent")
}

fn lookup_after_a_hit_sees_what_was_removed(w: &World<'_>) -> Verdict {
    for i in 0..10 {
        let name = format!("f{i}");
        w.file(&name, b"data")?;
        equal(w.stat(&name)?.size, 4, "size")?;
        w.unlink(&name)?;
        refused(w.stat(&name), Errno::ENOENT)?;
    }
    Ok(())
}

/// The filesystem itself, the node of the world's directory, and the context of a client.
struct Raw<'w> {
    client: &'w InProcess,
    dir: NodeRef,
    cx: Context<'static>,
}

impl Raw<'_> {
    /// The filesystem, whose lookups and handles are counted.
    fn fs(&self) -> &Arc<dyn DynFileSystem> {
        self.client.fs()
    }

    fn dir(&self) -> NodeId {
        self.dir.node()
    }
}

fn raw<'w>(w: &World<'w>) -> Result<Raw<'w>, crate::Failure> {
    let client = w.raw()?;
    Ok(Raw { client, dir: client.walk(&w.path(""))?, cx: client.context() })
}

fn name(bytes: &[u8]) -> Result<Name<'_>, Errno> {
    Ok(Name::new(bytes)?)
}

fn lookup_of_an_absent_name_is_no_error(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let found = raw.fs().lookup(&raw.cx, raw.dir(), name(b"absent")?)?;
    holds(matches!(found, Lookup::Absent(_)), "the answer is Lookup::Absent")
}

fn lookup_in_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    w.file("f", b"")?;
    let file = raw.client.walk(&w.path("f"))?;
    refused(raw.fs().lookup(&raw.cx, file.node(), name(b"x")?), Errno::ENOTDIR)
}

fn lookup_twice_gives_one_node(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.file("f", b"")?;
    let (one, two) = (client.walk(&w.path("f"))?, client.walk(&w.path("f"))?);
    equal(one.node(), two.node(), "the node")
}

fn lookup_by_two_hard_links_gives_one_node(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.mkdir("d", 0o755)?;
    w.file("a", b"")?;
    w.link("a", "d/b")?;
    let (one, two) = (client.walk(&w.path("a"))?, client.walk(&w.path("d/b"))?);
    equal(one.node(), two.node(), "the node")
}

fn lookup_gives_the_attributes_of_getattr(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    w.file("f", b"data")?;
    let (node, entry) = raw.client.walk_entry(&w.path("f"))?;
    let entry = entry.ok_or(Errno::EIO)?;
    let attr = raw.fs().getattr(&raw.cx, node.node(), None)?.attr;
    equal(entry.attr, attr, "the attributes")
}

fn lookup_and_creation_give_one_node(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let flags = OpenFlags::READ_WRITE;
    let made = raw.fs().create(&raw.cx, raw.dir(), name(b"f")?, 0o644, flags, false)?;
    let (entry, opened) = made;
    let node = NodeRef::adopt(Arc::clone(raw.fs()), &entry);
    raw.fs().release(&raw.cx, entry.node, opened.handle, Release::default())?;
    equal(raw.client.walk(&w.path("f"))?.node(), node.node(), "the node")
}

fn node_stays_the_same_through_a_rename(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.mkdir("d", 0o755)?;
    w.file("f", b"")?;
    let before = client.walk(&w.path("f"))?;
    w.rename("f", "d/g")?;
    equal(client.walk(&w.path("d/g"))?.node(), before.node(), "the node")
}

fn node_stays_usable_until_its_last_lookup_is_forgotten(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    w.file("f", b"data")?;
    let path = w.path("f");
    let held = [raw.client.walk(&path)?, raw.client.walk(&path)?, raw.client.walk(&path)?];
    let node = held[0].node();
    w.unlink("f")?;
    for one in held {
        equal(raw.fs().getattr(&raw.cx, node, None)?.attr.size, 4, "size")?;
        drop(one);
    }
    Ok(())
}

/// The cases of wrong forgets go around the ledger, which would count them as the client's mistake.
fn forget_of_more_than_was_given_stops_at_zero(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let fs = raw.client.uncounted();
    w.file("f", b"data")?;
    for too_many in [2, 1000, u64::MAX] {
        let entry = fs.lookup(&raw.cx, raw.dir(), name(b"f")?)?.found()?;
        fs.forget(entry.node, too_many);
    }
    // Had a count wrapped, the first of these two forgets would end the node.
    let one = fs.lookup(&raw.cx, raw.dir(), name(b"f")?)?.found()?;
    let two = fs.lookup(&raw.cx, raw.dir(), name(b"f")?)?.found()?;
    equal(one.node, two.node, "the node")?;
    w.unlink("f")?;
    fs.forget(one.node, 1);
    equal(fs.getattr(&raw.cx, two.node, None)?.attr.size, 4, "size")?;
    fs.forget(two.node, 1);
    Ok(())
}

fn forget_of_the_root_does_nothing(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let fs = raw.client.uncounted();
    fs.forget(NodeId::ROOT, u64::MAX);
    fs.batch_forget(&[(NodeId::ROOT, 1), (NodeId::ROOT, u64::MAX)]);
    holds(fs.getattr(&raw.cx, NodeId::ROOT, None)?.attr.is_dir(), "the root is a directory")?;
    w.file("f", b"")?;
    equal(w.names("")?, ["f"], "the listing")
}

fn forget_of_an_unknown_node_does_nothing(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let fs = raw.client.uncounted();
    for node in [0, u64::MAX, u64::MAX >> 1] {
        fs.forget(NodeId(node), 1);
        fs.batch_forget(&[(NodeId(node), u64::MAX)]);
    }
    w.file("f", b"data")?;
    equal(w.read("f")?, b"data", "the data")
}

fn batch_forget_does_what_forget_does(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    w.file("a", b"a")?;
    w.file("b", b"b")?;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        for file in [b"a", b"b"] {
            nodes.push(raw.fs().lookup(&raw.cx, raw.dir(), name(file)?)?.found()?.node);
        }
    }
    let last = raw.client.walk(&w.path("a"))?;
    raw.fs().batch_forget(&[(nodes[0], 2), (nodes[1], 3), (nodes[0], 1)]);
    w.unlink("a")?;
    equal(raw.fs().getattr(&raw.cx, last.node(), None)?.attr.size, 1, "size of what is held")
}

fn forget_while_open_keeps_the_handle_working(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    w.file("f", b"data")?;
    let node = raw.client.walk(&w.path("f"))?;
    let id = node.node();
    let opened = raw.fs().open(&raw.cx, id, OpenFlags::READ_ONLY, false)?;
    w.unlink("f")?;
    drop(node);
    let mut data = [0; 8];
    let mut sink = SliceSink::new(&mut data);
    let read = raw.fs().read(&raw.cx, id, opened.handle, 0, 8, &mut sink);
    raw.fs().release(&raw.cx, id, opened.handle, Release::default())?;
    equal(&data[..read?], b"data", "the data")
}

fn unknown_node_answers_estale(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let fs = raw.client.uncounted();
    for node in [NodeId(0), NodeId(u64::MAX), NodeId(u64::MAX >> 1)] {
        refused(fs.getattr(&raw.cx, node, None), Errno::ESTALE)?;
        refused(fs.lookup(&raw.cx, node, name(b"x")?), Errno::ESTALE)?;
        refused(fs.mkdir(&raw.cx, node, name(b"x")?, 0o755), Errno::ESTALE)?;
        refused(fs.unlink(&raw.cx, node, name(b"x")?), Errno::ESTALE)?;
    }
    Ok(())
}

fn unknown_handle_answers_ebadf(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let fs = raw.client.uncounted();
    w.file("f", b"data")?;
    let node = raw.client.walk(&w.path("f"))?;
    for handle in [HandleId(u64::MAX), HandleId(u64::MAX >> 1)] {
        let mut data = [0; 8];
        let mut sink = SliceSink::new(&mut data);
        refused(fs.read(&raw.cx, node.node(), handle, 0, 8, &mut sink), Errno::EBADF)?;
        refused(fs.fsync(&raw.cx, node.node(), handle, false), Errno::EBADF)?;
    }
    Ok(())
}

/// What stays behind in a client's cache is told from what came later by the pair of both.
fn inode_number_used_again_has_another_generation(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let mut seen = Vec::new();
    for _ in 0..20 {
        w.file("f", b"")?;
        let entry = raw.client.walk_entry(&w.path("f"))?.1.ok_or(Errno::EIO)?;
        let identity = (entry.attr.ino, entry.generation);
        holds(!seen.contains(&identity), "inode number and generation are never used again")?;
        seen.push(identity);
        w.unlink("f")?;
    }
    Ok(())
}

fn node_ids_stay_below_the_promised_bits(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let bits = u32::from(raw.fs().features().node_id_bits);
    for i in 0..100 {
        let path = format!("f{i}");
        w.file(&path, b"")?;
        let node = raw.client.walk(&w.path(&path))?.node();
        holds(node.0.checked_shr(bits).unwrap_or(0) == 0, "the id fits in the promised bits")?;
    }
    Ok(())
}

fn root_is_node_1_and_a_directory(w: &World<'_>) -> Verdict {
    let raw = raw(w)?;
    let attr = raw.fs().getattr(&raw.cx, NodeId::ROOT, None)?.attr;
    holds(attr.is_dir(), "the root is a directory")?;
    holds(attr.nlink >= 1, "it has a name")
}
