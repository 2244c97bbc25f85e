//! How a share is to be served, and the device's configuration space.

use std::fmt;
use std::thread;

use stratafs_core::Features;

/// Bytes of a tag: `struct virtio_fs_config`, VIRTIO 1.2, 5.11.4.
pub const MAX_TAG: usize = 36;
/// The most request queues: the messages that hand over a queue's descriptors have 8 bits for it,
/// and one queue is for requests of high priority.
pub const MAX_REQUEST_QUEUES: usize = 255;
/// Bytes of `struct virtio_fs_config`: the tag and the number of request queues.
const SPACE: usize = MAX_TAG + 4;
/// The most bytes of configuration space that one message carries.
const MAX_MESSAGE: u32 = 256;

/// The name by which a guest mounts a share: 1 to [`MAX_TAG`] bytes without a NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag([u8; MAX_TAG]);

/// Why a tag is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATag;

impl fmt::Display for NotATag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a tag has 1 to {MAX_TAG} bytes, none of them NUL")
    }
}

impl std::error::Error for NotATag {}

impl Tag {
    /// The tag of these bytes.
    ///
    /// # Errors
    /// [`NotATag`]: they are none, too many, or hold a NUL.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, NotATag> {
        let text = text.as_ref();
        let mut bytes = [0; MAX_TAG];
        let place = bytes.get_mut(..text.len()).ok_or(NotATag)?;
        if text.is_empty() || text.contains(&0) {
            return Err(NotATag);
        }
        place.copy_from_slice(text);
        Ok(Self(bytes))
    }
}

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) features: Features,
    pub(super) request_queues: usize,
    pub(super) tag: Option<Tag>,
}

impl Config {
    /// How many queues there are: that of high priority, and those for requests.
    pub(super) fn queues(&self) -> usize {
        self.request_queues.saturating_add(1)
    }

    /// A part of the configuration space, zeros where nothing is defined; `None` for more than a
    /// message carries, or without a tag.
    pub(super) fn space(&self, offset: u32, size: u32) -> Option<Vec<u8>> {
        let tag = self.tag.as_ref()?;
        let end = offset.checked_add(size).filter(|end| *end <= MAX_MESSAGE)?;
        let mut space = [0; MAX_MESSAGE as usize];
        let queues = u32::try_from(self.request_queues).unwrap_or(u32::MAX);
        space[..MAX_TAG].copy_from_slice(&tag.0);
        space[MAX_TAG..SPACE].copy_from_slice(&queues.to_le_bytes());
        space.get(offset as usize..end as usize).map(<[u8]>::to_vec)
    }
}

/// One queue for each CPU: what a guest of 6.11 or newer makes use of.
#[must_use]
pub fn default_queues() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get).clamp(1, MAX_REQUEST_QUEUES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tag: Option<&str>) -> Config {
        Config {
            features: Features::new("test"),
            request_queues: 0x0102,
            tag: tag.map(|tag| Tag::new(tag).unwrap()),
        }
    }

    #[test]
    fn tag_of_nothing_too_much_or_a_nul_is_none() {
        for text in [&b""[..], &[b'x'; 37], b"a\0b"] {
            assert_eq!(Tag::new(text), Err(NotATag));
        }
        assert!(Tag::new([b'x'; 36]).is_ok());
    }

    #[test]
    fn space_holds_the_tag_and_the_number_of_queues() {
        let space = config(Some("root")).space(0, 44).unwrap();
        assert_eq!(&space[..6], b"root\0\0");
        assert_eq!(&space[36..], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(config(Some("root")).space(2, 3).unwrap(), b"ot\0");
    }

    #[test]
    fn space_beyond_a_message_or_without_a_tag_is_none() {
        assert_eq!(config(None).space(0, 40), None);
        assert_eq!(config(Some("t")).space(250, 7), None);
        assert_eq!(config(Some("t")).space(u32::MAX, 2), None);
    }
}
