//! Mounting without privilege through the setuid program `fusermount3` (Debian package `fuse3`).
//!
//! The program opens `/dev/fuse`, mounts, and sends the descriptor over a Unix socket whose
//! number it finds in `_FUSE_COMMFD`.

use crate::check;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program.
pub const PROGRAM: &str = "fusermount3";

/// Why `fusermount3` did not mount or unmount.
#[derive(Debug)]
pub enum Failure {
    /// The program could not be started; `NotFound` where it is not installed.
    Start(io::Error),
    /// It ran and refused; what it printed, without its own name.
    Refused(String),
    /// It ended without sending a descriptor, or the socket failed.
    Protocol(io::Error),
}

/// Where the program is, by `PATH`.
///
/// # Errors
/// `ENOENT`: it is not installed.
pub fn find() -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|dir| dir.join(PROGRAM))
        .find(|file| file.is_absolute() && file.is_file())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

/// Mounts on `target` with `options`, a comma-separated list; answers the connection's descriptor,
/// close-on-exec.
///
/// # Errors
/// See [`Failure`].
pub fn mount(target: &Path, options: &OsStr) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = UnixStream::pair().map_err(Failure::Protocol)?;
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(options).arg("--").arg(target);
    command.env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let inherited = theirs.as_raw_fd();
    // SAFETY: the closure runs between fork and exec and makes one fcntl, which is
    // async-signal-safe. `theirs` is open until after the spawn. Clearing close-on-exec in the
    // child alone keeps other children that start meanwhile from inheriting the socket.
    unsafe {
        command.pre_exec(move || check(libc::fcntl(inherited, libc::F_SETFD, 0)).map(drop));
    }
    let mut program = command.spawn().map_err(Failure::Start)?;
    drop(theirs);
    let received = receive_descriptor(ours.as_fd());
    drop(ours);
    let complaint = complaint(&mut program);
    let _ = program.wait();
    match received {
        Ok(device) => {
            if !complaint.is_empty() {
                log::warn!("{PROGRAM}: {complaint}");
            }
            Ok(device)
        }
        Err(error) if complaint.is_empty() => Err(Failure::Protocol(error)),
        Err(_) => Err(Failure::Refused(complaint)),
    }
}

/// Detaches what is mounted on `target`, if this user mounted it.
///
/// # Errors
/// See [`Failure`].
pub fn unmount(target: &Path) -> Result<(), Failure> {
    let mut command = Command::new(PROGRAM);
    command.args(["-u", "-z", "--"]).arg(target);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut program = command.spawn().map_err(Failure::Start)?;
    let complaint = complaint(&mut program);
    match program.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::Refused(complaint)),
        Err(error) => Err(Failure::Protocol(error)),
    }
}

/// What the program printed until it closed its standard error, without the leading name.
fn complaint(program: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = program.stderr.take() {
        // A few lines at most; the limit keeps a broken program from filling memory.
        let _ = stderr.take(4096).read_to_string(&mut text);
    }
    text.lines()
        .map(|line| line.trim_start_matches("fusermount3: ").trim())
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Receives one descriptor (`SCM_RIGHTS`), close-on-exec.
///
/// # Errors
/// * `UnexpectedEof`: the other end closed without sending.
/// * `InvalidData`: a message without a descriptor came.
pub fn receive_descriptor(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// Room for one control message with one descriptor, aligned as its header must be.
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut byte = [0u8; 8];
    let mut control = Control([0; 64]);
    let mut data = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: msghdr is integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    let received = loop {
        // SAFETY: `message` points at live locals of the lengths that it names.
        let n = check(unsafe {
            libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC)
        });
        match n {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    // SAFETY: the kernel filled `message` in; CMSG_FIRSTHDR answers null or a header inside
    // `control`.
    let header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    if header.is_null() {
        let kind =
            if received == 0 { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
        return Err(io::Error::new(kind, "no descriptor was sent"));
    }
    // SAFETY: `header` is not null, so it points at a whole header inside `control`.
    let (level, kind, len) =
        unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
    // SAFETY: CMSG_LEN only computes.
    let wanted = unsafe { libc::CMSG_LEN(size_of::<libc::c_int>() as u32) };
    if level != libc::SOL_SOCKET || kind != libc::SCM_RIGHTS || len < wanted as _ {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no descriptor was sent"));
    }
    // SAFETY: the message is SCM_RIGHTS of at least one int, as just checked; it may be unaligned.
    let fd = unsafe { libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned() };
    // SAFETY: the kernel installed this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    /// Sends one descriptor (`SCM_RIGHTS`) with one byte.
    fn send_descriptor(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        /// As in [`receive_descriptor`].
        #[repr(C, align(8))]
        struct Control([u8; 64]);
        let size = size_of::<libc::c_int>() as u32;
        let mut byte = [0u8; 1];
        let mut control = Control([0; 64]);
        let mut data = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        // SAFETY: msghdr is integers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes, 24 for one int, less than `control` holds.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
        // SAFETY: the control area is larger than one header, so the first header is inside it; it is
        // aligned for the header, and the data is written unaligned.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size) as _;
            libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(descriptor.as_raw_fd());
        }
        // SAFETY: `message` points at live locals of the lengths that it names.
        check(unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL) })?;
        Ok(())
    }

    #[test]
    fn receive_descriptor_after_send_is_the_same_file_and_close_on_exec() {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, mut writer) = UnixStream::pair().unwrap();
        send_descriptor(a.as_fd(), reader.as_fd()).unwrap();
        drop(reader);
        let received = receive_descriptor(b.as_fd()).unwrap();
        // SAFETY: F_GETFD takes no argument.
        let flags = unsafe { libc::fcntl(received.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        writer.write_all(b"x").unwrap();
        let mut byte = [0];
        File::from(received).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn receive_descriptor_from_a_closed_socket_is_eof() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        let error = receive_descriptor(b.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn receive_descriptor_of_a_plain_message_is_invalid() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"x").unwrap();
        let error = receive_descriptor(b.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn mount_on_a_missing_directory_says_what_the_program_said() {
        match mount(Path::new("/no/such/mountpoint"), OsStr::new("rw")) {
            Err(Failure::Start(error)) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("skipped: fusermount3 is not installed");
            }
            Err(Failure::Refused(text)) => assert!(text.contains("mountpoint"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
