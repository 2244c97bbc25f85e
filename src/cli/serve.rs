//! `stratafs serve`: a spec as a share for virtual machines.

mod needs;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::needs::Needs;
use super::{Misuse, say};
use crate::sandbox::{self, Action, Begun, Inside, Mode, Sandbox};
use crate::spec::Composition;
use crate::transport;
use crate::transport::service::{self, Manager};
use crate::transport::vhost_user::config::default_queues;
use crate::transport::vhost_user::{Ended, Listener, Server, Share, Tag, socket};

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
what is under way is answered; a socket that a killed server left is taken over.

The server goes into a sandbox: it sees the directories of the spec and nothing else of the
host, has no capability that the spec does not need, and is killed if it makes a system call
that serving does not take. --log-level info says what of that this host allows.";

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

    /// How the server is kept from the host's files
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    sandbox: SandboxMode,

    /// Fail where the sandbox cannot be had, rather than warn
    #[arg(long)]
    require_sandbox: bool,

    /// What becomes of the server if it makes a system call that serving does not take
    #[arg(long, value_enum, value_name = "ACTION", default_value_t)]
    seccomp: SeccompAction,

    /// Log to syslog instead of the standard error
    #[arg(long)]
    pub(super) syslog: bool,

    /// Print what this server can do, for the managers of virtual machines, and exit
    #[arg(long)]
    print_capabilities: bool,
}

/// `--sandbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SandboxMode {
    /// Namespaces of its own, with nothing in them but what is served
    #[default]
    Namespace,
    /// An empty root directory; it takes root
    Chroot,
    /// Not at all
    None,
}

/// `--seccomp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SeccompAction {
    /// It is killed
    #[default]
    Kill,
    /// The kernel logs it
    Log,
    /// SIGSYS is sent to it
    Trap,
    /// Nothing
    None,
}

/// What the server's process works with.
struct Serving {
    wait: Box<dyn Fn(&Server) -> Ended>,
    manager: Manager,
    composition: Composition,
    queues: usize,
    tag: Option<Tag>,
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
        if self.require_sandbox && self.sandbox == SandboxMode::None {
            bail!(Misuse("--require-sandbox and --sandbox=none exclude each other".to_owned()));
        }
        let composition = Composition::parse(spec)?;
        // Before the socket is there: from then on a signal must remove it.
        let termination = transport::catch_signals().context("cannot catch signals")?;
        let limit = service::raise_descriptor_limit(self.rlimit_nofile)
            .context("cannot raise the limit of open files")?;
        log::debug!("up to {limit} descriptors may be open");
        // What tells how many there are is not to be seen from within.
        let queues = self.num_request_queues.map_or_else(default_queues, usize::from);
        let manager = Manager::find().unwrap_or_else(|error| {
            log::warn!("NOTIFY_SOCKET: {error}");
            Manager::default()
        });
        let sandbox = self.sandbox(&composition);
        if !sandbox.is_complete() {
            // It fails, and says why in words of its own.
            composition.build()?;
        }
        let mut listeners = self.listeners()?;
        match sandbox.begin()? {
            Begun::Outside(outside) => {
                let on_ready = || self.tell_ready(&composition, &manager);
                // It told who is to be told when it was ready; an error now says no more than one
                // then.
                let on_end = || drop(manager.tell_stopping());
                let ended = outside.wait(termination, on_ready, on_end);
                drop(listeners);
                Ok(ended?)
            }
            Begun::Inside(inside) => {
                let termination = if inside.is_alone() {
                    termination
                } else {
                    listeners.iter_mut().for_each(Listener::leave_file);
                    transport::catch_signals_in_child().context("cannot catch signals")?
                };
                let wait = Box::new(move |server: &Server| server.wait_or(termination));
                let serving = Serving { wait, manager, composition, queues, tag };
                self.serve(inside, listeners, &serving)
            }
        }
    }

    /// The server's process.
    fn serve(&self, mut inside: Inside, listeners: Vec<Listener>, serving: &Serving) -> Result<u8> {
        let Serving { wait, manager, composition, queues, tag } = serving;
        // The sockets were made under the umask, and the filesystem is without one.
        service::clear_umask();
        let filesystem = composition.build()?;
        inside.confine()?;
        let mut servers = Vec::new();
        for listener in listeners {
            let mut share = Share::builder(filesystem.clone())
                .readonly(self.readonly)
                .once(self.once)
                .request_queues(*queues);
            if let Some(threads) = self.thread_pool_size {
                share = share.pool_threads(threads.into());
            }
            if let Some(tag) = tag {
                share = share.tag(tag.clone());
            }
            servers.push(share.serve(listener)?);
        }
        if inside.is_alone() {
            self.tell_ready(composition, manager);
        } else {
            inside.ready();
        }
        for server in &servers {
            if let Ended::Signal(signal) = wait(server) {
                log::info!("ending on signal {signal}");
                break;
            }
        }
        if inside.is_alone() {
            let _ = manager.tell_stopping();
        }
        let stuck = servers.into_iter().map(Server::stop).filter(|is_over| !is_over).count();
        if stuck > 0 {
            bail!("cannot end in order: the filesystem is stuck in a request");
        }
        Ok(0)
    }

    fn tell_ready(&self, composition: &Composition, manager: &Manager) {
        say(&format!("{composition} is served at {}", self.places()));
        if let Err(error) = manager.tell_ready() {
            log::warn!("telling NOTIFY_SOCKET that the server is ready: {error}");
        }
    }

    fn sandbox(&self, composition: &Composition) -> Sandbox {
        let mode = match self.sandbox {
            SandboxMode::Namespace => Mode::Namespace,
            SandboxMode::Chroot => Mode::Chroot,
            SandboxMode::None => Mode::None,
        };
        let action = match self.seccomp {
            SeccompAction::Kill => Action::Kill,
            SeccompAction::Log => Action::Log,
            SeccompAction::Trap => Action::Trap,
            SeccompAction::None => Action::None,
        };
        let needs = Needs::of(composition.root(), sandbox::is_root());
        let sandbox = Sandbox::new()
            .mode(mode)
            .required(self.require_sandbox)
            .seccomp(action)
            .privileges(needs.privileges);
        needs.trees.into_iter().fold(sandbox, Sandbox::tree)
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
