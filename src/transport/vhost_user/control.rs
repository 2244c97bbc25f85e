//! What the VMM says: the messages of vhost-user, and the queues that they set up.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stratafs_core::Behaviours;
use stratafs_sys::eventfd::EventFd;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::config::Config;
use super::memory::{MAX_REGIONS, Memory};
use super::ring::{Ring, Unusable};
use super::worker::{self, Pool, Reader};
use crate::protocol::Session;

/// VIRTIO_F_VERSION_1: the guest speaks VIRTIO 1.
const VERSION_1: u64 = 1 << 32;
/// VIRTIO_RING_F_INDIRECT_DESC: chains may lie in tables of their own.
const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_RING_F_EVENT_IDX: each side says from which index on it wants to be told.
const EVENT_IDX: u64 = 1 << 29;

/// How long a queue that is stopped waits for what is under way. A filesystem stuck in a request (a
/// dead network disk below it) must not keep a VMM from stopping.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// A queue and the thread that reads it, which begins with the queue.
struct Queue {
    ring: Arc<Ring>,
    /// Wakes the reader where no kick does.
    wake: EventFd,
    thread: Option<JoinHandle<()>>,
}

/// One connection's side of the protocol.
pub(super) struct Control {
    config: Arc<Config>,
    session: Arc<Session>,
    pool: Arc<Pool>,
    memory: Memory,
    queues: Vec<Queue>,
    stop: Arc<AtomicBool>,
    features: u64,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("queues", &self.queues.len()).finish_non_exhaustive()
    }
}

impl From<Unusable> for Error {
    fn from(_: Unusable) -> Self {
        Self::InvalidParam
    }
}

impl Control {
    /// A connection that is yet to say anything.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no descriptor is left.
    pub(super) fn new(
        config: &Arc<Config>,
        session: &Arc<Session>,
        pool: &Arc<Pool>,
    ) -> std::io::Result<Self> {
        let queue = |index| {
            let (ring, wake) = (Arc::new(Ring::new(index)?), EventFd::new()?);
            ring.also_wait_for(wake.as_fd())?;
            Ok(Queue { ring, wake, thread: None })
        };
        let queues = (0..config.queues()).map(queue).collect::<std::io::Result<_>>()?;
        Ok(Self {
            config: Arc::clone(config),
            session: Arc::clone(session),
            pool: Arc::clone(pool),
            memory: Memory::default(),
            queues,
            stop: Arc::new(AtomicBool::new(false)),
            features: 0,
        })
    }

    /// Ends the connection: nothing more is taken, what is under way is answered, and the threads
    /// end; whether all did before [`GRACE`] was over.
    pub(super) fn end(&mut self) -> bool {
        let deadline = Instant::now() + GRACE;
        for queue in &self.queues {
            queue.ring.stop(deadline.saturating_duration_since(Instant::now()));
        }
        self.stop.store(true, Ordering::SeqCst);
        for queue in &self.queues {
            queue.wake.signal();
        }
        let mut threads: Vec<_> =
            self.queues.iter_mut().filter_map(|queue| queue.thread.take()).collect();
        // A thread that is not stuck ends at once.
        worker::join(&mut threads, deadline.max(Instant::now() + Duration::from_secs(1)))
    }

    fn queue(&mut self, index: u32) -> Result<&mut Queue> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.queues.get_mut(index))
            .ok_or(Error::InvalidParam)
    }

    fn ring(&mut self, index: u32) -> Result<&Ring> {
        self.queue(index).map(|queue| &*queue.ring)
    }

    /// Tells every queue where the guest's memory is now.
    fn spread_memory(&self) {
        let mapped = self.memory.mapped();
        for queue in &self.queues {
            queue.ring.set_memory(&mapped);
        }
    }

    fn has_protocol_features(&self) -> bool {
        self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0
    }

    /// Starts the reader of a queue unless it runs, and has it look for requests.
    fn start_reader(&mut self, index: u32) -> Result<()> {
        let is_prompt = self.config.features.bears(Behaviours::PROMPT);
        let (session, pool) = (Arc::clone(&self.session), Arc::clone(&self.pool));
        let stop = Arc::clone(&self.stop);
        let queue = self.queue(index)?;
        if queue.thread.is_none() {
            let ring = Arc::clone(&queue.ring);
            let reader = Reader { ring, session, pool, is_prompt, stop };
            let builder = thread::Builder::new().name(format!("stratafs-queue-{index}"));
            let thread = builder.spawn(move || reader.run()).map_err(Error::ReqHandlerError)?;
            queue.thread = Some(thread);
        }
        queue.wake.signal();
        Ok(())
    }
}

impl VhostUserBackendReqHandlerMut for Control {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        for queue in &self.queues {
            queue.ring.set_enabled(false);
            queue.ring.stop(GRACE);
        }
        self.features = 0;
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        Ok(VERSION_1 | INDIRECT_DESC | EVENT_IDX | protocol)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        for queue in &self.queues {
            queue.ring.set_event_idx(features & EVENT_IDX != 0);
            // Without the protocol's features queues are enabled from the beginning.
            if !self.has_protocol_features() {
                queue.ring.set_enabled(true);
                queue.wake.signal();
            }
        }
        Ok(())
    }

    fn set_mem_table(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        self.memory.replace(regions, files)?;
        self.spread_memory();
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        Ok(self.ring(index)?.set_size(num)?)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let find = |address| self.memory.guest_address(address).ok_or(Error::InvalidParam);
        let addresses = [find(descriptor)?, find(available)?, find(used)?];
        self.ring(index)?.set_addresses(addresses)?;
        self.start_reader(index)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        Ok(self.ring(index)?.set_base(base)?)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let next = self.ring(index)?.stop(GRACE);
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        if fd.is_none() {
            log::warn!("queue {index}: the VMM gives no descriptor to be kicked by");
        }
        self.ring(index.into())?.set_kick(fd)?;
        self.start_reader(index.into())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(index.into())?.set_call(fd);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> Result<()> {
        // No fault of a guest's ends its queue, so there is nothing to tell.
        self.ring(index.into()).map(drop)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut features = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        features.set(VhostUserProtocolFeatures::CONFIG, self.config.tag.is_some());
        Ok(features)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let queue = self.queue(index)?;
        queue.ring.set_enabled(enable);
        queue.wake.signal();
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        self.config.space(offset, size).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        // Every field is the device's to say (VIRTIO 1.2, 5.11.4.1).
        Err(Error::InvalidOperation("the configuration of a filesystem is not writable"))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(&mut self, region: &VhostUserSingleMemoryRegion, fd: File) -> Result<()> {
        self.memory.add(region, fd)?;
        self.spread_memory();
        Ok(())
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.memory.remove(region)?;
        self.spread_memory();
        Ok(())
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("this is no display"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("there are no shared objects"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("what is under way is not tracked"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("what is under way is not tracked"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("the state cannot be moved"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("the state cannot be moved"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("there is no shared memory"))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidOperation("changes of memory are not logged"))
    }
}
