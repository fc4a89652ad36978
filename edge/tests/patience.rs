//! Addresses that another program holds for a moment longer.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::thread;
use std::time::Duration;

use edge::os;

/// A program that was killed holds on to its addresses for so long.
const DYING: Duration = Duration::from_millis(300);

/// Far longer than that, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_address_is_waited_for_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let other = os::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let other_at_path = os::listen_unix(&path).unwrap();
    let address = other.local_addr().unwrap();
    let taken = || os::listen(address).unwrap_err().kind();
    assert_eq!(taken(), io::ErrorKind::AddrInUse, "nobody is patient yet");
    let dying = thread::spawn(move || {
        thread::sleep(DYING);
        drop((other, other_at_path));
    });
    os::wait_for_addresses(PATIENCE);
    let _own = os::listen(address).unwrap();
    let _own_at_path = os::listen_unix(&path).unwrap();
    dying.join().unwrap();
}
