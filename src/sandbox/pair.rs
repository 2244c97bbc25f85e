//! The process outside and the one inside.
//!
//! The server must be the first process of a process namespace, and its maps of users be written
//! from outside. So the process that was started forks one that makes the namespaces; that one forks
//! the server, which is in them, and ends; and the server, an orphan, is the first one's child.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;

use stratafs_sys::namespace::{self, Namespaces};
use stratafs_sys::process::{self, Forked, Process};
use stratafs_sys::{poll, signal};

use super::{Begun, Inside, Sandbox, SandboxError, ids};

/// To the one outside: the namespaces are made, and know no users yet.
const UNSHARED: u8 = b'u';
/// To the one outside: the server is the process of the number that follows, or, if that is 0, the
/// one that speaks.
const SERVER: u8 = b's';
/// To the one outside: the server serves.
pub(super) const READY: u8 = b'r';
/// To the one inside: go on.
const GO: u8 = b'g';

/// SIGTERM.
const TERMINATE: i32 = 15;

/// One half of a process that was split.
pub(super) enum Split {
    Outside(Outside),
    Inside { link: UnixStream, namespaces: Option<Namespaces> },
}

impl Split {
    /// Goes on as what it is.
    pub(super) fn begun(self, sandbox: Sandbox) -> Result<Begun, SandboxError> {
        match self {
            Self::Outside(outside) => Ok(Begun::Outside(outside)),
            Self::Inside { link, namespaces } => {
                let inside = Inside::new(sandbox, Some(link));
                inside.rooted(namespaces)?.limited().map(Begun::Inside)
            }
        }
    }
}

/// The process outside.
#[derive(Debug)]
pub struct Outside {
    server: Process,
    link: UnixStream,
}

/// Splits this process, the server's half into `namespaces`.
pub(super) fn split(
    sandbox: &Sandbox,
    namespaces: Option<Namespaces>,
) -> Result<Split, SandboxError> {
    let failed = |error| SandboxError::failed("make a process", error);
    let (link, other) = UnixStream::pair().map_err(failed)?;
    process::adopt_orphans().map_err(failed)?;
    match process::fork().map_err(failed)? {
        Forked::Parent(child) => {
            drop(other);
            attend(child, link).map(Split::Outside)
        }
        Forked::Child => {
            drop(link);
            let namespaces = enter(sandbox, namespaces, &other)?;
            await_parent(&other)?;
            Ok(Split::Inside { link: other, namespaces })
        }
    }
}

/// Outside: does what the child needs, until the server is there.
fn attend(child: Process, mut link: UnixStream) -> Result<Outside, SandboxError> {
    let failed = |error| SandboxError::failed("begin the server's process", error);
    loop {
        let mut word = [0];
        if link.read(&mut word).map_err(failed)? == 0 {
            // It has said why.
            return Ok(Outside { server: child, link });
        }
        if word == [UNSHARED] {
            ids::map(child.id())
                .map_err(|error| SandboxError::failed("map users into a namespace", error))?;
            link.write_all(&[GO]).map_err(failed)?;
            continue;
        }
        let mut number = [0; 4];
        link.read_exact(&mut number).map_err(failed)?;
        let server = match u32::from_ne_bytes(number) {
            0 => child,
            id => {
                child.wait().map_err(failed)?;
                Process::adopted(id).map_err(failed)?
            }
        };
        link.write_all(&[GO]).map_err(failed)?;
        return Ok(Outside { server, link });
    }
}

/// In the child: makes the namespaces and goes into them; which they are.
fn enter(
    sandbox: &Sandbox,
    namespaces: Option<Namespaces>,
    mut link: &UnixStream,
) -> Result<Option<Namespaces>, SandboxError> {
    let failed = |error| SandboxError::failed("begin the server's process", error);
    if let Some(kinds) = namespaces {
        match namespace::unshare(kinds) {
            Ok(()) => {
                if kinds.contains(Namespaces::USER) {
                    link.write_all(&[UNSHARED]).map_err(failed)?;
                    await_word(link)?;
                }
                if let Forked::Parent(server) = process::fork().map_err(failed)? {
                    let said = link.write_all(&said(server.id()));
                    process::exit_at_once(said.map_or(1, |()| 0));
                }
                return Ok(namespaces);
            }
            Err(error) => sandbox.lacks(SandboxError::failed("make namespaces", error))?,
        }
    }
    link.write_all(&said(0)).map_err(failed)?;
    Ok(None)
}

fn said(server: u32) -> [u8; 5] {
    let [a, b, c, d] = server.to_ne_bytes();
    [SERVER, a, b, c, d]
}

fn await_word(mut link: &UnixStream) -> Result<(), SandboxError> {
    match link.read_exact(&mut [0]) {
        Ok(()) => Ok(()),
        Err(_) => Err(SandboxError::Orphaned),
    }
}

/// In the server: waits until the process outside is its parent, and ties its life to it.
fn await_parent(mut link: &UnixStream) -> Result<(), SandboxError> {
    await_word(link)?;
    let failed = |error| SandboxError::failed("tie the server to its parent", error);
    process::die_with_parent().map_err(failed)?;
    // It may have died just before.
    link.set_nonblocking(true).map_err(failed)?;
    let parent = link.read(&mut [0]);
    link.set_nonblocking(false).map_err(failed)?;
    match parent {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(SandboxError::Orphaned),
    }
}

impl Outside {
    /// Waits for the server, and passes on a signal that asks for its end. Calls `on_ready` once
    /// the server serves, and `on_end` once it is to end. Answers its exit code.
    ///
    /// # Errors
    /// [`SandboxError::Killed`].
    pub fn wait(
        mut self,
        termination: signal::Termination,
        on_ready: impl FnOnce(),
        on_end: impl FnOnce(),
    ) -> Result<u8, SandboxError> {
        let failed = |error| SandboxError::failed("wait for the server", error);
        let (mut on_ready, mut on_end) = (Some(on_ready), Some(on_end));
        loop {
            let ready = if on_end.is_some() {
                let [link, ended] = poll::readable([self.link.as_fd(), termination.as_fd()], None)
                    .map_err(failed)?;
                if ended.readable {
                    on_end.take().into_iter().for_each(|tell| tell());
                    // It may have ended by itself.
                    let _ = self.server.signal(termination.received().unwrap_or(TERMINATE));
                }
                link
            } else {
                let [link] = poll::readable([self.link.as_fd()], None).map_err(failed)?;
                link
            };
            if !ready.readable {
                continue;
            }
            let mut word = [0];
            match self.link.read(&mut word) {
                Ok(1) if word == [READY] => on_ready.take().into_iter().for_each(|tell| tell()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let status = self.server.wait().map_err(failed)?;
        on_end.take().into_iter().for_each(|tell| tell());
        match (status.code(), status.signal()) {
            (Some(code), _) => Ok(u8::try_from(code).unwrap_or(1)),
            (None, signal) => Err(SandboxError::killed(signal.unwrap_or(0))),
        }
    }
}
