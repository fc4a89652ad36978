//! Listening sockets that this program did not open itself: a service manager passes them at its start (`LISTEN_FDS`, see sd_listen_fds(3)), or
//! the program that it replaces hands them over ([`super::handover`]).
//!
//! They lie in one table of the process, as descriptors are the process's: who wants to listen at an address gets the socket that is bound to it
//! already, if there is one, and opens a new one if not.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{SockAddr, SockRef, Socket};

static PASSED: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

fn table() -> MutexGuard<'static, Vec<Socket>> {
    PASSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what a service manager has passed to this process, and how many that are. To be called once, before anything listens.
///
/// # Errors
/// The variables make no sense, or a descriptor is no listening stream socket.
pub fn adopt_passed_sockets() -> io::Result<usize> {
    let numbers = sd_notify::listen_fds()?;
    let mut adopted = Vec::with_capacity(numbers.len());
    for number in numbers {
        adopted.push(adopt(number)?);
    }
    let count = adopted.len();
    put_passed(adopted);
    Ok(count)
}

#[expect(
    unsafe_code,
    reason = "a service manager passes descriptors by number; there is no other way to take them"
)]
fn adopt(number: RawFd) -> io::Result<Socket> {
    // SAFETY: sd_listen_fds(3): descriptors from 3 on, as many as LISTEN_FDS says, were opened for this process and belong to it. This function
    // is called once for each of them.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(number) });
    if SockRef::from(&socket).is_listener().unwrap_or(false) {
        socket.set_nonblocking(true)?;
        return Ok(socket);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("descriptor {number}, which the service manager passes, is no listening socket"),
    ))
}

/// Puts listening sockets into the table.
pub(super) fn put_passed(sockets: Vec<Socket>) {
    table().extend(sockets);
}

/// The socket of the table that is bound to `address`.
pub(super) fn take_passed(address: &SockAddr) -> Option<Socket> {
    take(|bound| match (bound.as_socket(), address.as_socket()) {
        // Without scope and flow of IPv6, which a configured address may leave out.
        (Some(bound), Some(wanted)) => bound.ip() == wanted.ip() && bound.port() == wanted.port(),
        _ => false,
    })
}

/// The socket of the table that is bound to `path`.
pub(super) fn take_passed_at(path: &Path) -> Option<Socket> {
    take(|bound| bound.as_pathname() == Some(path))
}

fn take(is_wanted: impl Fn(&SockAddr) -> bool) -> Option<Socket> {
    let mut table = table();
    let at = table
        .iter()
        .position(|socket| socket.local_addr().is_ok_and(|bound| is_wanted(&bound)))?;
    Some(table.swap_remove(at))
}

/// Closes what nobody has asked for, and says where those sockets listened.
pub fn close_unclaimed_sockets() -> Vec<String> {
    let unclaimed = std::mem::take(&mut *table());
    unclaimed.iter().map(describe).collect()
}

fn describe(socket: &Socket) -> String {
    match socket.local_addr() {
        Ok(address) => match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => address.to_string(),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => "an address of another kind".to_owned(),
        },
        Err(error) => format!("nowhere ({error})"),
    }
}
