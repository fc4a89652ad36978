//! Passing listening sockets from one program to the next. Here both are one process, whose sockets are the process's: so one test at a time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use edge::cli::Failure;
use edge::lifecycle::Handover;
use edge::os;
use tokio::sync::Mutex;
use tokio::task::{spawn_blocking, yield_now};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn sockets_that_listen_arrive_and_still_listen() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let listener = os::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (old, new) = UnixStream::pair().unwrap();
    assert_eq!(os::send_listening_sockets(&old).unwrap(), 1);
    assert_eq!(os::receive_listening_sockets(&new).unwrap(), 1);
    // Somebody connects before the new program listens, and the old one is gone.
    drop(listener);
    let client = std::net::TcpStream::connect(address).unwrap();
    let taken = os::listen(address).unwrap();
    let (_, peer) = taken.accept().await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(
        os::listen(address).unwrap_err().kind(),
        io::ErrorKind::AddrInUse,
        "nobody gets it twice"
    );
}

#[tokio::test]
async fn sockets_that_nobody_wants_are_closed_and_named() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let listener = os::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (old, new) = UnixStream::pair().unwrap();
    os::send_listening_sockets(&old).unwrap();
    os::receive_listening_sockets(&new).unwrap();
    drop(listener);
    assert_eq!(os::close_unclaimed_sockets(), [address.to_string()]);
    assert!(os::close_unclaimed_sockets().is_empty());
    let error = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_does_not_keep_to_the_exchange_is_an_error() {
    let _alone = ONE_AT_A_TIME.blocking_lock();
    for (bytes, expected) in [
        (&b"x"[..], io::ErrorKind::InvalidData),
        (b"s", io::ErrorKind::InvalidData),
        (b"", io::ErrorKind::UnexpectedEof),
    ] {
        let (mut old, new) = UnixStream::pair().unwrap();
        old.write_all(bytes).unwrap();
        drop(old);
        let error = os::receive_listening_sockets(&new).unwrap_err();
        assert_eq!(error.kind(), expected, "{bytes:?}");
    }
}

#[test]
fn a_private_socket_replaces_a_dead_one_and_nothing_else() {
    let _alone = ONE_AT_A_TIME.blocking_lock();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handover");
    drop(os::listen_private(&path).unwrap());
    let _listener = os::listen_private(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let there = UnixStream::connect(&path).unwrap();
    assert!(os::is_same_user(&there).unwrap());
    assert_eq!(
        os::peer_process(&there).and_then(|id| u32::try_from(id).ok()),
        Some(std::process::id())
    );

    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let error = os::listen_private(&file).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_newcomer_that_goes_away_disturbs_nobody_and_the_next_one_takes_over() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handover");
    let first = Handover::begin(Some(&path)).await.unwrap();
    let mut successors = first.listen().unwrap();

    drop(Handover::begin(Some(&path)).await.unwrap());
    os::close_unclaimed_sockets();
    // What asks nothing sensible is greeted, and told nothing.
    let at = path.clone();
    let heard = spawn_blocking(move || {
        let mut stream = UnixStream::connect(at).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut heard = Vec::new();
        let _reset = stream.read_to_end(&mut heard);
        heard
    });
    assert_eq!(heard.await.unwrap(), b"wanproxy handover 1\n");

    let mut second = Handover::begin(Some(&path)).await.unwrap();
    let (prepared, ()) = tokio::join!(second.prepared(), async {
        let successor = successors.next().await;
        assert_eq!(
            successor.process().and_then(|id| u32::try_from(id).ok()),
            Some(std::process::id())
        );
        successor.released().await;
    });
    prepared.unwrap();
    drop(successors);
    drop(second.listen().unwrap());
    // The task that listens there ends when it has its turn, and other tests count what listens in this process.
    while UnixStream::connect(&path).is_ok() {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_predecessor_that_ends_in_the_middle_is_an_error_in_one_line() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handover");
    let first = Handover::begin(Some(&path)).await.unwrap();
    let mut successors = first.listen().unwrap();
    let mut second = Handover::begin(Some(&path)).await.unwrap();
    let (prepared, ()) = tokio::join!(second.prepared(), async {
        drop(successors.next().await);
    });
    let Err(Failure::Failed(line)) = prepared else {
        unreachable!("nobody released anything")
    };
    assert!(
        line.contains("the other program has ended") && !line.contains('\n'),
        "{line}"
    );
}
