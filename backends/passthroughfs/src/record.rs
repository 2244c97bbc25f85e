//! The ownership record: `user.containers.override_stat`, as podman, fuse-overlayfs and libkrun
//! keep it.
//!
//! The text is `uid:gid:mode`, and for what is neither a file nor a directory `:type` behind it.
//! What is written is the oldest form that says all of it, for the oldest readers take exactly three
//! fields. What is read is every form that one of the tools writes: a mode with or without a
//! leading zero, with or without type bits in it (libkrun), a type `file` or `dir` spelled out
//! (podman). Anything else is corrupt, and never guessed at.

use std::ffi::CStr;
use std::fmt::{self, Write};

use stratafs_core::FileType;
use stratafs_core::attr::S_IFMT;

/// The attribute that holds the record.
pub(crate) const RECORD: &CStr = c"user.containers.override_stat";

/// The longest text that is read. The longest that is written has 58 bytes.
pub(crate) const MAX_LEN: usize = 80;

/// What a client sees of an object instead of what the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits alone.
    pub(crate) mode: u32,
    /// The type, where the text has one.
    pub(crate) kind: Option<FileType>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
}

/// The text is none of the known forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

impl Record {
    /// Reads a text.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Corrupt> {
        let mut fields = text.split(|b| *b == b':');
        let mut next = || fields.next().ok_or(Corrupt);
        let (uid, gid) = (id(next()?)?, id(next()?)?);
        let bits = number(next()?, 8)?;
        let (named, device) = match fields.next() {
            None => (None, (0, 0)),
            Some(text) => kind(text)?,
        };
        if fields.next().is_some() || bits > 0o177_777 {
            return Err(Corrupt);
        }
        let in_mode = match bits & S_IFMT {
            0 => None,
            bits => Some(FileType::from_mode(bits).ok_or(Corrupt)?),
        };
        let kind = match (named, in_mode) {
            (Some(named), Some(in_mode)) if named != in_mode => return Err(Corrupt),
            (named, in_mode) => named.or(in_mode),
        };
        if matches!(kind, Some(FileType::CharDevice | FileType::BlockDevice)) && named.is_none() {
            // Type bits alone cannot say which device.
            return Err(Corrupt);
        }
        Ok(Self { uid, gid, mode: bits & 0o7777, kind, device })
    }

    /// The text, on the stack.
    pub(crate) fn text(&self) -> Text {
        let mut text = Text { bytes: [0; MAX_LEN], len: 0 };
        // It always fits: five numbers of at most ten digits.
        let _ = write!(text, "{}:{}:{:04o}", self.uid, self.gid, self.mode & 0o7777);
        let (major, minor) = self.device;
        let _ = match self.kind {
            None | Some(FileType::Regular | FileType::Directory) => Ok(()),
            Some(FileType::Symlink) => text.write_str(":symlink"),
            Some(FileType::Fifo) => text.write_str(":pipe"),
            Some(FileType::Socket) => text.write_str(":socket"),
            Some(FileType::CharDevice) => write!(text, ":char-{major}-{minor}"),
            Some(FileType::BlockDevice) => write!(text, ":block-{major}-{minor}"),
        };
        text
    }
}

/// A record's text.
pub(crate) struct Text {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Text {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.len + part.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Digits of `radix` and nothing else: no sign, no space.
fn number(text: &[u8], radix: u32) -> Result<u32, Corrupt> {
    let digits = std::str::from_utf8(text).map_err(|_| Corrupt)?;
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(Corrupt);
    }
    u32::from_str_radix(digits, radix).map_err(|_| Corrupt)
}

/// An id; `u32::MAX` is none.
fn id(text: &[u8]) -> Result<u32, Corrupt> {
    number(text, 10).and_then(|id| if id == u32::MAX { Err(Corrupt) } else { Ok(id) })
}

fn kind(text: &[u8]) -> Result<(Option<FileType>, (u32, u32)), Corrupt> {
    let plain = match text {
        b"file" => FileType::Regular,
        b"dir" => FileType::Directory,
        b"symlink" => FileType::Symlink,
        b"pipe" => FileType::Fifo,
        b"socket" => FileType::Socket,
        _ => return device(text).map(|(kind, numbers)| (Some(kind), numbers)),
    };
    Ok((Some(plain), (0, 0)))
}

fn device(text: &[u8]) -> Result<(FileType, (u32, u32)), Corrupt> {
    let mut parts = text.split(|b| *b == b'-');
    let kind = match parts.next() {
        Some(b"char") => FileType::CharDevice,
        Some(b"block") => FileType::BlockDevice,
        _ => return Err(Corrupt),
    };
    let mut next = || parts.next().ok_or(Corrupt).and_then(|part| number(part, 10));
    let numbers = (next()?, next()?);
    if parts.next().is_some() { Err(Corrupt) } else { Ok((kind, numbers)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: u32, gid: u32, mode: u32, kind: Option<FileType>) -> Record {
        Record { uid, gid, mode, kind, device: (0, 0) }
    }

    #[test]
    fn parse_of_what_other_tools_write_reads_it() {
        use FileType::*;
        for (text, expected) in [
            // fuse-overlayfs, podman of both ages, libkrun
            ("0:0:755", record(0, 0, 0o755, None)),
            ("0:0:0555", record(0, 0, 0o555, None)),
            ("1000:1001:0644:file", record(1000, 1001, 0o644, Some(Regular))),
            ("1001:1012:0755:dir", record(1001, 1012, 0o755, Some(Directory))),
            ("1012:1022:4755:file", record(1012, 1022, 0o4755, Some(Regular))),
            ("0:0:0100755", record(0, 0, 0o755, Some(Regular))),
            ("0:0:0040700", record(0, 0, 0o700, Some(Directory))),
            ("1:2:0777:symlink", record(1, 2, 0o777, Some(Symlink))),
            ("1003:1014:0666:pipe", record(1003, 1014, 0o666, Some(Fifo))),
            ("1004:1015:0700:socket", record(1004, 1015, 0o700, Some(Socket))),
            ("4294967294:0:0", record(u32::MAX - 1, 0, 0, None)),
        ] {
            assert_eq!(Record::parse(text.as_bytes()), Ok(expected), "{text}");
        }
        let device = Record::parse(b"1006:1017:0600:char-1-3").unwrap();
        assert_eq!((device.kind, device.device), (Some(CharDevice), (1, 3)));
        let device = Record::parse(b"0:0:0060600:block-8-0").unwrap();
        assert_eq!((device.kind, device.device, device.mode), (Some(BlockDevice), (8, 0), 0o600));
    }

    #[test]
    fn parse_of_anything_else_is_corrupt() {
        for text in [
            "",
            ":",
            "::",
            "0",
            "0:0",
            "0:0:",
            "0:0:8",
            "0:0:0x1",
            "-1:0:755",
            "+1:0:755",
            " 0:0:755",
            "0:0:755 ",
            "0:0:755\n",
            "0:0:755\0",
            "4294967295:0:755",
            "0:4294967296:755",
            "0:0:755:",
            "0:0:755:disk",
            "0:0:755:file:",
            "0:0:755:char",
            "0:0:755:char-1",
            "0:0:755:char-1-",
            "0:0:755:char-1-2-3",
            "0:0:755:char--1-2",
            "0:0:0020600",
            "0:0:0100644:dir",
            "0:0:0170000",
            "0:0:0200644",
            "0:0:777777777777",
            "a:0:755",
        ] {
            assert_eq!(Record::parse(text.as_bytes()), Err(Corrupt), "{text:?}");
        }
        assert_eq!(Record::parse(b"0:\xff:755"), Err(Corrupt));
    }

    #[test]
    fn text_of_a_file_or_directory_has_three_fields() {
        let text = |kind| record(1000, 100, 0o4755, kind).text().as_bytes().to_vec();
        assert_eq!(text(None), b"1000:100:4755");
        assert_eq!(text(Some(FileType::Regular)), b"1000:100:4755");
        assert_eq!(text(Some(FileType::Directory)), b"1000:100:4755");
        assert_eq!(record(0, 0, 0o64, None).text().as_bytes(), b"0:0:0064");
    }

    #[test]
    fn text_of_every_special_type_is_read_back() {
        use FileType::*;
        for kind in [Symlink, Fifo, Socket, CharDevice, BlockDevice] {
            let mut one = record(u32::MAX - 1, u32::MAX - 1, 0o7777, Some(kind));
            if matches!(kind, CharDevice | BlockDevice) {
                one.device = (u32::MAX, u32::MAX);
            }
            let text = one.text();
            assert!(text.as_bytes().len() <= 64, "fuse-overlayfs reads 64 bytes");
            assert_eq!(Record::parse(text.as_bytes()), Ok(one));
        }
    }
}
