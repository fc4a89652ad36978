//! Passing this process's listening sockets to the one that replaces it, over a Unix socket.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt::socket_peercred,
};
use socket2::{SockRef, Socket};

use super::passed::{put_passed, take_passed_at};

/// Sockets that are taken from another process: far above what a configuration has, far below what a process may have open.
const SOCKETS_MAX: usize = 4096;

/// What goes with each descriptor, since one cannot travel alone; and what says that there are no more.
const SOCKET: u8 = b's';
const NO_MORE: u8 = b'.';

/// Does the process at the other end run as the same user, or as root?
///
/// # Errors
/// The system does not say.
pub fn is_same_user(stream: &UnixStream) -> io::Result<bool> {
    let peer = socket_peercred(stream)?.uid;
    Ok(peer == rustix::process::geteuid() || peer.is_root())
}

/// The process id of the other end.
pub fn peer_process(stream: &UnixStream) -> Option<i32> {
    Some(socket_peercred(stream).ok()?.pid.as_raw_nonzero().get())
}

/// Opens a listening socket at `path` for this user alone, or takes the one that was handed over. What a program that crashed left there is
/// replaced; anything but a socket is not.
///
/// # Errors
/// What the system said; `AlreadyExists` where something else is.
pub fn listen_private(path: &Path) -> io::Result<UnixListener> {
    if let Some(socket) = take_passed_at(path) {
        return Ok(OwnedFd::from(socket).into());
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Sends all sockets at which this process listens. It keeps its own.
///
/// # Errors
/// What the system said.
pub fn send_listening_sockets(stream: &UnixStream) -> io::Result<usize> {
    let sockets = listening_sockets()?;
    for socket in &sockets {
        send(stream, SOCKET, Some(socket.as_fd()))?;
    }
    send(stream, NO_MORE, None)?;
    Ok(sockets.len())
}

/// Receives what [`send_listening_sockets`] sends, for whoever listens at their addresses next.
///
/// # Errors
/// What the system said; `InvalidData` if the other end does not keep to it.
pub fn receive_listening_sockets(stream: &UnixStream) -> io::Result<usize> {
    let mut sockets = Vec::new();
    loop {
        match receive(stream)? {
            (NO_MORE, None) => break,
            (SOCKET, Some(socket)) if sockets.len() < SOCKETS_MAX => {
                let socket = Socket::from(socket);
                if SockRef::from(&socket).is_listener()? {
                    socket.set_nonblocking(true)?;
                    sockets.push(socket);
                }
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    let count = sockets.len();
    put_passed(sockets);
    Ok(count)
}

fn send(stream: &UnixStream, byte: u8, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let bytes = [byte];
    sendmsg(
        stream,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0];
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    let [byte] = bytes;
    Ok((byte, socket))
}

/// Copies of all descriptors of this process that are listening stream sockets. Which these are the system knows best.
fn listening_sockets() -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // What was closed meanwhile is not there any more; what its number became is looked at as what it is.
        if let Ok(copy) = duplicate(number).map(Socket::from)
            && SockRef::from(&copy).is_listener().unwrap_or(false)
        {
            sockets.push(copy);
        }
    }
    Ok(sockets)
}

#[expect(
    unsafe_code,
    reason = "descriptors that the system lists are known by number alone"
)]
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes any number, and fails for one that is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the copy was made a line above, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
