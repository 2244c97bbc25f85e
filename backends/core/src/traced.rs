//! A filesystem that logs what it is asked and what it answers.

use std::borrow::Cow;
use std::fmt;

use log::Level;

use crate::{Answer, Context, Intercept, Op, OpKind, Outcome};

/// The target of the lines, to be named in a log filter.
const TARGET: &str = "stratafs::trace";

/// An intercept that logs one line for each request, once it is answered, to the target
/// `stratafs::trace`: `upper: lookup(node 1, "etc") = node 5`.
///
/// What comes with every byte or page (`read`, `write`, `forget`) is at level trace, everything
/// else at debug. Where its level is off a request costs one comparison, and nothing is formatted.
/// Names are escaped; data, symlink targets and attribute values are not shown, only their lengths.
///
/// It sees each read and write, so backing files are withheld.
#[derive(Clone, Debug)]
pub struct Traced {
    label: Cow<'static, str>,
}

impl Traced {
    /// An intercept whose lines begin with `label`: which of several filesystems it is.
    #[must_use]
    pub fn new(label: impl Into<Cow<'static, str>>) -> Self {
        Self { label: label.into() }
    }
}

impl Intercept for Traced {
    type Mark = ();

    fn after(&self, _: &Context<'_>, op: &Op<'_>, _mark: (), outcome: &Outcome<'_>) {
        log::log!(target: TARGET, level(op.kind()), "{}", Line { label: &self.label, op, outcome });
    }

    fn sees_data(&self) -> bool {
        true
    }
}

const fn level(kind: OpKind) -> Level {
    match kind {
        OpKind::Read | OpKind::Write | OpKind::Forget | OpKind::BatchForget => Level::Trace,
        _ => Level::Debug,
    }
}

/// One line of the log.
struct Line<'a> {
    label: &'a str,
    op: &'a Op<'a>,
    outcome: &'a Outcome<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(test)]
        tests::FORMATTED.with(|count| count.set(count.get() + 1));
        write!(f, "{}: {}(", self.label, self.op.name())?;
        operands(f, self.op)?;
        f.write_str(") = ")?;
        match self.outcome {
            Ok(answer) => show(f, answer),
            Err(errno) => write!(f, "{errno:?}"),
        }
    }
}

fn operands(f: &mut fmt::Formatter<'_>, op: &Op<'_>) -> fmt::Result {
    match op {
        Op::Rename { parent, name, new_parent, new_name, flags } => {
            write!(f, "{parent:?}, {name:?}, {new_parent:?}, {new_name:?}, {:#x}", flags.bits())
        }
        Op::Link { node, new_parent, new_name } => {
            write!(f, "{node:?}, {new_parent:?}, {new_name:?}")
        }
        Op::CopyFileRange { from, to, len } => write!(
            f,
            "{:?}, {:?}, {}, {:?}, {:?}, {}, {len}",
            from.node, from.handle, from.offset, to.node, to.handle, to.offset
        ),
        Op::Forget { node, count } => write!(f, "{node:?}, {count}"),
        Op::BatchForget { nodes } => write!(f, "{} nodes", nodes.len()),
        _ => {
            // Every other request has a node; then come those of its operands that tell most.
            let node = op.node().unwrap_or(crate::NodeId::ROOT);
            write!(f, "{node:?}")?;
            if let Some(name) = op.entry_name() {
                write!(f, ", {name:?}")?;
            }
            if let Some(handle) = op.handle() {
                write!(f, ", {handle:?}")?;
            }
            details(f, op)
        }
    }
}

fn details(f: &mut fmt::Formatter<'_>, op: &Op<'_>) -> fmt::Result {
    match op {
        Op::Setattr { set, .. } => write!(f, ", {set:?}"),
        Op::Symlink { target, .. } => write!(f, ", {} bytes", target.len()),
        Op::Mknod { mode, rdev, .. } => write!(f, ", {mode:#o}, {rdev:#x}"),
        Op::Mkdir { mode, .. } => write!(f, ", {mode:#o}"),
        Op::Open { flags, .. } | Op::Opendir { flags, .. } => write!(f, ", {flags:?}"),
        Op::Create { mode, flags, .. } | Op::Tmpfile { mode, flags, .. } => {
            write!(f, ", {mode:#o}, {flags:?}")
        }
        Op::Read { offset, size, .. } => write!(f, ", {size} bytes at {offset}"),
        Op::Write { offset, size, flags, .. } => {
            write!(f, ", {size} bytes at {offset}, {:#x}", flags.bits())
        }
        Op::Fallocate { mode, offset, len, .. } => {
            write!(f, ", {:#x}, {len} bytes at {offset}", mode.bits())
        }
        Op::Lseek { offset, to, .. } => write!(f, ", {to:?} from {offset}"),
        Op::Readdir { cookie, .. } | Op::Readdirplus { cookie, .. } => write!(f, ", {cookie}"),
        Op::Getxattr { name, size, .. } => write!(f, ", {name:?}, {size}"),
        Op::Setxattr { name, value, .. } => write!(f, ", {name:?}, {} bytes", value.len()),
        Op::Removexattr { name, .. } => write!(f, ", {name:?}"),
        Op::Access { mask, .. } => write!(f, ", {mask:#o}"),
        Op::Getlk { lock, .. } | Op::Setlk { lock, .. } | Op::Setlkw { lock, .. } => {
            write!(f, ", {lock:?}")
        }
        Op::SetInodeFlags { flags, .. } => write!(f, ", {flags:#x}"),
        _ => Ok(()),
    }
}

fn show(f: &mut fmt::Formatter<'_>, answer: &Answer<'_>) -> fmt::Result {
    match answer {
        Answer::Done => f.write_str("done"),
        Answer::Entry(entry) => write!(f, "{:?}", entry.node),
        Answer::Absent(_) => f.write_str("absent"),
        Answer::Attr(timed) => {
            write!(f, "mode {:#o}, size {}", timed.attr.mode, timed.attr.size)
        }
        Answer::Opened(opened) => write!(f, "{:?}", opened.handle),
        Answer::Created(entry, opened) => write!(f, "{:?}, {:?}", entry.node, opened.handle),
        Answer::Bytes(bytes) => write!(f, "{bytes} bytes"),
        Answer::Listed(entries) => write!(f, "{entries} entries"),
        Answer::Offset(offset) => write!(f, "{offset}"),
        Answer::StatFs(statfs) => write!(f, "{} of {} free", statfs.bfree, statfs.blocks),
        Answer::Lock(lock) => write!(f, "{lock:?}"),
        Answer::Flags(flags) => write!(f, "{flags:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::sync::{Arc, Once};

    use log::{LevelFilter, Log, Metadata, Record};

    use super::*;
    use crate::intercept::fake::{Fake, every_method};
    use crate::{Behaviours, DynFileSystem, HandleId, Intercepted, Name, NodeId, SliceSink};

    thread_local! {
        /// How many lines were formatted by this thread.
        pub(super) static FORMATTED: Cell<usize> = const { Cell::new(0) };
        /// What this thread lets through, and what came.
        static ENABLED: Cell<LevelFilter> = const { Cell::new(LevelFilter::Off) };
        static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// The one logger that a process has; each test sees only its own thread's lines.
    struct PerThread;

    impl Log for PerThread {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == TARGET && metadata.level() <= ENABLED.get()
        }

        fn log(&self, record: &Record<'_>) {
            if self.enabled(record.metadata()) {
                LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
            }
        }

        fn flush(&self) {}
    }

    /// Runs `client` on a traced fake, logging what `filter` lets through.
    fn traced(filter: LevelFilter, client: impl FnOnce(&dyn DynFileSystem)) -> Vec<String> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            log::set_logger(&PerThread).expect("no other test sets a logger");
            log::set_max_level(LevelFilter::Trace);
        });
        ENABLED.set(filter);
        FORMATTED.set(0);
        client(&Intercepted::new(Arc::new(Fake::default()), Traced::new("upper")));
        LINES.take()
    }

    fn every(fs: &dyn DynFileSystem) {
        every_method(fs);
    }

    #[test]
    fn disabled_nothing_is_formatted() {
        assert_eq!(traced(LevelFilter::Off, every), [""; 0]);
        assert_eq!(FORMATTED.get(), 0);
        traced(LevelFilter::Trace, every);
        assert_eq!(FORMATTED.get(), OpKind::ALL.len(), "the count does count");
    }

    #[test]
    fn every_request_is_one_line_at_its_level() {
        let lines = traced(LevelFilter::Trace, every);
        assert_eq!(lines.len(), OpKind::ALL.len());
        for kind in OpKind::ALL {
            let start = format!("upper: {}(", kind.name());
            assert_eq!(lines.iter().filter(|line| line.starts_with(&start)).count(), 1, "{start}");
        }
        let at_trace = OpKind::ALL.iter().filter(|kind| level(**kind) == Level::Trace).count();
        assert_eq!(traced(LevelFilter::Debug, every).len(), lines.len() - at_trace);
    }

    #[test]
    fn lines_show_names_escaped_operands_and_outcome() {
        let cx = Context::new(1, None);
        let name = Name::new(b"a\n\"").unwrap();
        let lines = traced(LevelFilter::Trace, |fs| {
            fs.lookup(&cx, NodeId::ROOT, name).unwrap();
            fs.rmdir(&cx, NodeId::ROOT, name).unwrap_err();
            let mut buf = [0; 4];
            fs.read(&cx, NodeId(2), HandleId(3), 7, 2, &mut SliceSink::new(&mut buf)).unwrap();
            fs.forget(NodeId(2), 9);
        });
        assert_eq!(
            lines,
            [
                r#"upper: lookup(node 1, "a\n\"") = node 60"#,
                r#"upper: rmdir(node 1, "a\n\"") = ENOTEMPTY"#,
                "upper: read(node 2, handle 3, 2 bytes at 7) = 2 bytes",
                "upper: forget(node 2, 9) = done",
            ]
        );
    }

    #[test]
    fn lines_show_no_data() {
        let lines = traced(LevelFilter::Trace, every);
        let shown = |secret: &str| lines.iter().any(|line| line.contains(secret));
        assert!(!shown("target") && !shown("value") && !shown("label"), "{lines:#?}");
    }

    #[test]
    fn backing_files_are_withheld() {
        let fs = Intercepted::new(Arc::new(Fake::default()), Traced::new("upper"));
        assert!(!fs.features().bears(Behaviours::PASSTHROUGH));
    }
}
