//! `stratafs serve`: a spec as a share for virtual machines.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{Misuse, say};
use crate::spec::Composition;
use crate::transport::vhost_user::{Ended, Listener, Server, Share, Tag, socket};
use crate::transport::{self, service};

const EXAMPLES: &str = "\
Examples:
  A host directory as the root of a guest:
      stratafs serve /srv/guest --socket-path /run/vm/root.sock
      qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on \\
          -machine q35,memory-backend=mem -chardev socket,id=fs,path=/run/vm/root.sock \\
          -device vhost-user-fs-pci,chardev=fs,tag=rootfs,queue-size=1024 ...

  One filesystem in memory for two guests:
      stratafs serve 'mem(capacity=1GiB)' --socket-path /run/a.sock --socket-path /run/b.sock

When a VMM goes away the server waits for the next one. It ends with Ctrl-C or SIGTERM, after
what is under way is answered; a socket that a killed server left is taken over.";

/// Serve a spec to virtual machines over virtio-fs (vhost-user)
///
/// It prints one line when VMMs can connect, and tells systemd (Type=notify).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// What to serve, such as /srv/guest, 'mem(capacity=1GiB)' or @FILE.toml
    #[arg(required_unless_present = "print_capabilities")]
    spec: Option<OsString>,

    /// Where VMMs connect; given more than once, each serves a VMM of its own
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    #[arg(required_unless_present_any = ["fd", "print_capabilities"])]
    socket_path: Vec<PathBuf>,

    /// Use this descriptor, on which whoever started the command listens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    fd: Option<i32>,

    /// Let members of this group connect too
    #[arg(long, value_name = "GROUP", conflicts_with = "fd")]
    socket_group: Option<String>,

    /// Tell VMMs this tag, by which the guest mounts the share; without it the VMM has one
    #[arg(long)]
    tag: Option<String>,

    /// How many request queues a guest may use; without it, one for each CPU
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=255))]
    num_request_queues: Option<u16>,

    /// How many requests that may take long, such as fsync, are served at a time beside the others;
    /// with 0 the others wait for them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    thread_pool_size: Option<u16>,

    /// End when the VMM goes away
    #[arg(long)]
    once: bool,

    /// Raise the limit of open files to N, as far as it can be; 0 leaves it as it is
    #[arg(long, value_name = "N", default_value_t = service::DEFAULT_DESCRIPTORS)]
    rlimit_nofile: u64,

    /// Answer every change with EROFS
    #[arg(long)]
    readonly: bool,

    /// Print what this server can do, for the managers of virtual machines, and exit
    #[arg(long)]
    print_capabilities: bool,
}

/// As the vhost-user specification has it for "Backend program conventions".
const CAPABILITIES: &str = "{\n  \"type\": \"fs\"\n}\n";

impl Serve {
    /// Serves until it is told to end; the answer is the exit code.
    pub(super) fn run(&self) -> Result<u8> {
        if self.print_capabilities {
            return match io::stdout().write_all(CAPABILITIES.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(0),
            };
        }
        let Some(spec) = &self.spec else { bail!(Misuse("no spec is given".to_owned())) };
        let tag = self.tag.as_ref().map(Tag::new).transpose().map_err(|error| {
            Misuse(format!("cannot use the tag: {error}\n  choose a shorter one"))
        })?;
        let composition = Composition::parse(spec)?;
        // Before the socket is there: from then on a signal must remove it.
        let termination = transport::catch_signals().context("cannot catch signals")?;
        let limit = service::raise_descriptor_limit(self.rlimit_nofile)
            .context("cannot raise the limit of open files")?;
        log::debug!("up to {limit} descriptors may be open");
        // The sockets are made under the umask, and the filesystem without one. It is built after the
        // limit was raised, too: it divides what it finds.
        let listeners = self.listeners()?;
        service::clear_umask();
        let filesystem = composition.build()?;
        let mut servers = Vec::new();
        for listener in listeners {
            let mut share =
                Share::builder(filesystem.clone()).readonly(self.readonly).once(self.once);
            if let Some(queues) = self.num_request_queues {
                share = share.request_queues(queues.into());
            }
            if let Some(threads) = self.thread_pool_size {
                share = share.pool_threads(threads.into());
            }
            if let Some(tag) = &tag {
                share = share.tag(tag.clone());
            }
            servers.push(share.serve(listener)?);
        }
        say(&format!("{composition} is served at {}", self.places()));
        if let Err(error) = service::tell_ready() {
            log::warn!("telling NOTIFY_SOCKET that the server is ready: {error}");
        }
        for server in &servers {
            if let Ended::Signal(signal) = server.wait_or(termination) {
                log::info!("ending on signal {signal}");
                break;
            }
        }
        // It told who is to be told when it was ready; an error now says no more than one then.
        let _ = service::tell_stopping();
        let stuck = servers.into_iter().map(Server::stop).filter(|is_over| !is_over).count();
        if stuck > 0 {
            bail!("cannot end in order: the filesystem is stuck in a request");
        }
        Ok(0)
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        if let Some(number) = self.fd {
            return Ok(vec![Listener::inherited(number)?]);
        }
        let group = self
            .socket_group
            .as_deref()
            .map(|name| {
                socket::group(name).map_err(|error| {
                    Misuse(format!(
                        "cannot use the group `{}`: {error}\n  name a group of this host",
                        name.escape_debug()
                    ))
                })
            })
            .transpose()?;
        let bound = self.socket_path.iter().map(|path| Listener::bind(path, group));
        Ok(bound.collect::<Result<_, _>>()?)
    }

    fn places(&self) -> String {
        match self.fd {
            Some(number) => format!("descriptor {number}"),
            None => {
                let paths = self.socket_path.iter().map(|path| path.display().to_string());
                paths.collect::<Vec<_>>().join(", ")
            }
        }
    }
}
