//! Unix sockets: listening at a path without ever taking what is somebody else's, and looking at what waits in one.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::UnixListener;

use super::passed::take_passed_at;
use super::patience::patiently;
use super::socket::LISTEN_BACKLOG;

/// Who may connect: the user and the group of this program. Whom else, the directory's group (with its setgid bit) can say.
const SOCKET_MODE: u32 = 0o660;

/// Set once another program has taken this one's sockets: their files are its own from then on.
static FILES_ARE_LEFT: AtomicBool = AtomicBool::new(false);

/// A listening Unix socket. Its file goes with it, if this program has made it.
#[derive(Debug)]
pub struct UnixSocket {
    /// Accepts.
    pub listener: UnixListener,
    /// What the file is known by, if it is this program's.
    file: Option<OwnFile>,
}

#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

/// The file at `path`: what it is known by, and whether it is a socket.
fn look(path: &Path) -> io::Result<Option<((u64, u64), bool)>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some((
            (found.dev(), found.ino()),
            found.file_type().is_socket(),
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a listening socket at `path`, or takes the one that was passed to this process. A socket at which nobody listens any more is replaced;
/// nothing else is.
///
/// # Errors
/// What the system said; `AlreadyExists` where the path is no socket, `AddrInUse` where somebody listens.
pub fn listen_unix(path: &Path) -> io::Result<UnixSocket> {
    if let Some(socket) = take_passed_at(path) {
        // Whoever has passed it keeps its file, or has left it to be replaced.
        let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
        return Ok(UnixSocket {
            listener,
            file: None,
        });
    }
    patiently(|| listen_anew(path))
}

fn listen_anew(path: &Path) -> io::Result<UnixSocket> {
    let address = SockAddr::unix(path)?;
    if let Some((file, is_socket)) = look(path)? {
        if !is_socket {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket; remove it, or use another path",
            ));
        }
        if is_listened_at(&address)? {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another program listens there",
            ));
        }
        // Not what somebody else has put there meanwhile.
        if look(path)?.is_some_and(|(now, _)| now == file) {
            fs::remove_file(path)?;
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Linux makes the file with these rights, so nobody slips in before; where a system does not, and against the umask, again below.
    let _ = rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE));
    socket.bind(&address)?;
    let file = look(path)?.map(|(device_and_inode, _)| OwnFile {
        path: path.to_owned(),
        device_and_inode,
    });
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(LISTEN_BACKLOG)?;
    let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
    Ok(UnixSocket { listener, file })
}

/// Does anybody listen at the address? Asking costs whoever does a connection that ends at once.
fn is_listened_at(address: &SockAddr) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue must not hold us up; whoever has one, listens.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            io::ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
    }
}

/// From now on the files of this program's sockets stay when it ends: another one listens at them.
pub fn leave_socket_files() {
    FILES_ARE_LEFT.store(true, Ordering::Relaxed);
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        let is_own = look(&file.path).is_ok_and(|found| {
            found.is_some_and(|(now, is_socket)| is_socket && now == file.device_and_inode)
        });
        if is_own
            && !FILES_ARE_LEFT.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_file(&file.path)
        {
            tracing::warn!(path = %file.path.display(), %error, "the socket's file stays; the next start replaces it");
        }
    }
}

/// Is there a byte to read? False is the end.
///
/// # Errors
/// `WouldBlock` when nothing is there; else the connection failed.
pub fn peek(socket: &impl AsFd) -> io::Result<bool> {
    let mut room = [MaybeUninit::uninit(); 1];
    Ok(SockRef::from(socket).peek(&mut room)? > 0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_for_user_and_group_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let socket = listen_unix(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        let connected = UnixStream::connect(&path).await.unwrap();
        let (accepted, _) = socket.listener.accept().await.unwrap();
        drop(connected);
        accepted.readable().await.unwrap();
        assert!(!peek(&accepted).unwrap());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_nobody_listens_at_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        // A crash leaves the file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = listen_unix(&path).unwrap();
        let error = listen_unix(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).await.unwrap();

        // What has taken the path meanwhile does not go with the listener.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(first);
        let error = listen_unix(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let link = directory.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(listen_unix(&link).is_err() && link.is_symlink());
    }

    #[tokio::test]
    async fn a_full_queue_counts_as_somebody_who_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("busy.sock");
        let address = SockAddr::unix(&path).unwrap();
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&address).unwrap();
        busy.listen(0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(is_listened_at(&address).unwrap());
        let error = listen_unix(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
