//! The VMM's side of a connection: memory, features, queues.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{
    Address as _, FileOffset, GuestAddress, GuestMemory as _, GuestMemoryRegion as _,
    GuestRegionMmap,
};
use vmm_sys_util::eventfd::EventFd;

use super::super::memory::Mapped;
use super::queue::{Layout, Queue};

/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;
/// VIRTIO_RING_F_EVENT_IDX.
const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_RING_F_INDIRECT_DESC.
const INDIRECT: u64 = 1 << 28;

/// What a VMM sets up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setup {
    /// Request queues, beside the one of high priority.
    pub request_queues: usize,
    /// Entries of a queue, a power of two from 8.
    pub queue_size: u16,
    /// The most data of one request, in bytes.
    pub data_size: u32,
    /// Whether EVENT_IDX is used, where the server has it.
    pub event_idx: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { request_queues: 1, queue_size: 128, data_size: 64 << 10, event_idx: true }
    }
}

impl Setup {
    /// Asks for so many request queues.
    #[must_use]
    pub fn with_request_queues(mut self, queues: usize) -> Self {
        self.request_queues = queues;
        self
    }

    /// Makes queues of `size` entries.
    #[must_use]
    pub fn with_queue_size(mut self, size: u16) -> Self {
        self.queue_size = size;
        self
    }

    /// Has room for `size` bytes of data in a request.
    #[must_use]
    pub fn with_data_size(mut self, size: u32) -> Self {
        self.data_size = size;
        self
    }

    /// Uses EVENT_IDX, or does not.
    #[must_use]
    pub fn with_event_idx(mut self, is_used: bool) -> Self {
        self.event_idx = is_used;
        self
    }
}

/// A connection to a server.
pub struct Vmm {
    frontend: Frontend,
    queues: usize,
    tag: Option<[u8; 36]>,
}

impl std::fmt::Debug for Vmm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vmm").field("queues", &self.queues).finish_non_exhaustive()
    }
}

/// Where the guest's memory begins: not at 0, so that 0 is no address.
const BASE: u64 = 1 << 20;

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

impl Vmm {
    /// Negotiates with the server on `stream` and starts queues: number 0 is that of high priority,
    /// the others are for requests.
    ///
    /// # Errors
    /// The server speaks another protocol, has fewer queues, or refuses what every VMM does.
    pub fn connect(stream: UnixStream, setup: &Setup) -> io::Result<(Self, Vec<Queue>)> {
        let count = setup.request_queues + 1;
        let mut frontend = Frontend::from_stream(stream, count as u64);
        frontend.set_owner().map_err(other)?;
        let offered = frontend.get_features().map_err(other)?;
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        if offered & VERSION_1 == 0 || offered & protocol == 0 {
            return Err(other("the server offers no VIRTIO 1 over vhost-user"));
        }
        let event_idx = setup.event_idx && offered & EVENT_IDX != 0;
        let mut features = VERSION_1 | protocol | (offered & INDIRECT);
        if event_idx {
            features |= EVENT_IDX;
        }
        frontend.set_features(features).map_err(other)?;
        let protocol = frontend.get_protocol_features().map_err(other)?;
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG;
        frontend.set_protocol_features(protocol & wanted).map_err(other)?;
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        if protocol.contains(VhostUserProtocolFeatures::MQ) {
            let offered = frontend.get_queue_num().map_err(other)?;
            if offered < count as u64 {
                return Err(other(format!("the server has {offered} queues, not {count}")));
            }
        }
        let tag = protocol
            .contains(VhostUserProtocolFeatures::CONFIG)
            .then(|| read_tag(&mut frontend))
            .transpose()?;
        let layouts: Vec<Layout> = (0..count)
            .scan(BASE, |next, _| {
                let layout = Layout::new(GuestAddress(*next), setup);
                *next = layout.end();
                Some(layout)
            })
            .collect();
        let end = layouts.last().map_or(BASE, Layout::end);
        let memory = Arc::new(map(BASE, end - BASE)?);
        let regions: Vec<_> = memory
            .iter()
            .map(VhostUserMemoryRegionInfo::from_guest_region)
            .collect::<Result<_, _>>()
            .map_err(other)?;
        frontend.set_mem_table(&regions).map_err(other)?;
        let vmm_base = regions.first().map_or(0, |region| region.userspace_addr);
        let mut vmm = Self { frontend, queues: count, tag };
        let mut queues = Vec::with_capacity(count);
        for (index, layout) in layouts.into_iter().enumerate() {
            queues.push(vmm.start(index, &memory, layout, vmm_base, setup, event_idx)?);
        }
        Ok((vmm, queues))
    }

    fn start(
        &mut self,
        index: usize,
        memory: &Arc<Mapped>,
        layout: Layout,
        vmm_base: u64,
        setup: &Setup,
        event_idx: bool,
    ) -> io::Result<Queue> {
        let (kick, call) = (EventFd::new(libc_nonblock())?, EventFd::new(libc_nonblock())?);
        let address = |guest: GuestAddress| vmm_base + (guest.raw_value() - BASE);
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, setup.queue_size).map_err(other)?;
        frontend.set_vring_base(index, 0).map_err(other)?;
        let config = VringConfigData {
            queue_max_size: setup.queue_size,
            queue_size: setup.queue_size,
            flags: 0,
            desc_table_addr: address(layout.descriptors),
            used_ring_addr: address(layout.used),
            avail_ring_addr: address(layout.available),
            log_addr: None,
        };
        frontend.set_vring_addr(index, &config).map_err(other)?;
        frontend.set_vring_kick(index, &kick).map_err(other)?;
        frontend.set_vring_call(index, &call).map_err(other)?;
        frontend.set_vring_enable(index, true).map_err(other)?;
        Queue::new(Arc::clone(memory), layout, kick, call, event_idx)
    }

    /// The tag that the server tells.
    #[must_use]
    pub fn tag(&self) -> Option<&[u8]> {
        let tag = self.tag.as_ref()?;
        let len = tag.iter().position(|byte| *byte == 0).unwrap_or(tag.len());
        tag.get(..len)
    }

    /// Stops queue `index` and says which request would be the next: GET_VRING_BASE.
    ///
    /// # Errors
    /// The server refuses or is gone.
    pub fn stop(&mut self, index: usize) -> io::Result<u32> {
        self.frontend.get_vring_base(index).map_err(other)
    }

    /// Says how many queues were started.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues
    }
}

/// EFD_NONBLOCK, which is O_NONBLOCK.
const fn libc_nonblock() -> i32 {
    0o4000
}

fn read_tag(frontend: &mut Frontend) -> io::Result<[u8; 36]> {
    use vhost::vhost_user::message::VhostUserConfigFlags;
    let (_, space) =
        frontend.get_config(0, 40, VhostUserConfigFlags::WRITABLE, &[0; 40]).map_err(other)?;
    space
        .get(..36)
        .and_then(|tag| tag.try_into().ok())
        .ok_or_else(|| other("the configuration space is too short"))
}

fn map(base: u64, len: u64) -> io::Result<Mapped> {
    let len = len.next_multiple_of(4096);
    let file = stratafs_sys::io::memory_file(c"guest")?;
    file.set_len(len)?;
    let size = usize::try_from(len).map_err(other)?;
    let region =
        GuestRegionMmap::from_range(GuestAddress(base), size, Some(FileOffset::new(file, 0)))
            .map_err(other)?;
    let mapped = Mapped::from_regions(vec![region]).map_err(other)?;
    debug_assert!(mapped.iter().all(|region| region.len() == len));
    Ok(mapped)
}
