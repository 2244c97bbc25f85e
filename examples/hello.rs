//! A whole filesystem, written the short way: a directory with two files that can be read.
//!
//! `cargo run --example hello` shows it.

#![forbid(unsafe_code)]

use std::sync::Arc;

use stratafs_core::{
    Attr, Context, DynFileSystem, Errno, Name, NameBuf, NodeId, ReadSink, Result, Simple, SimpleFs,
};

/// The files: name and content.
const FILES: [(&str, &str); 2] =
    [("hello.txt", "Hello, world!\n"), ("more.txt", "A SimpleFs says what there is.\n")];

struct Hello;

impl SimpleFs for Hello {
    /// The place in `FILES`, or nothing for the root.
    type File = Option<usize>;

    fn root(&self) -> Self::File {
        None
    }

    fn attr(&self, file: &Self::File) -> Result<Attr> {
        let Some(place) = file else { return Ok(Attr::new(0, 0o040_555)) };
        let mut attr = Attr::new(0, 0o100_444);
        attr.size = FILES[*place].1.len() as u64;
        Ok(attr)
    }

    fn child(&self, _: &Self::File, name: Name<'_>) -> Result<Self::File> {
        let place = FILES.iter().position(|(known, _)| known.as_bytes() == name.as_bytes());
        place.map(Some).ok_or(Errno::ENOENT)
    }

    fn list(&self, _: &Self::File) -> Result<Vec<NameBuf>> {
        FILES.iter().map(|(name, _)| Ok(Name::new(name.as_bytes())?.to_owned())).collect()
    }

    fn read(&self, file: &Self::File, offset: u64, sink: &mut dyn ReadSink) -> Result<usize> {
        let content = file.map_or("", |place| FILES[place].1).as_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        sink.write_slice(&content[start..])
    }
}

/// The filesystem, to be served or composed like any other.
pub(crate) fn hello() -> Arc<dyn DynFileSystem> {
    Arc::new(Simple::new("hello", Hello))
}

fn main() -> Result<()> {
    let (fs, name) = (hello(), Name::new(b"hello.txt")?);
    let found = fs.lookup(&Context::new(0, None), NodeId::ROOT, name)?.found()?;
    println!("{name} has {} bytes", found.attr.size);
    Ok(())
}
