//! A program that the edge starts holds the descriptors meant for it and no other: no socket, no poller, nothing of the wake-ups.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeSet, VecDeque};
use std::process::{Command, Stdio};

/// The descriptors that a child finds open, as the kernel names them, without the one through which it looks.
fn descriptors_of_a_child() -> BTreeSet<String> {
    let output = Command::new("/bin/sh")
        .args(["-c", "ls -l /proc/self/fd"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let (before, target) = line.split_once(" -> ")?;
            let number = before.rsplit(' ').next()?;
            let looks_through = target.starts_with("/proc/") && target.ends_with("/fd");
            // Standard output is a new pipe each time; only its number can be compared.
            (!looks_through).then(|| match number {
                "0" | "1" | "2" => number.to_owned(),
                _ => format!("{number} -> {target}"),
            })
        })
        .collect()
}

#[test]
fn a_spawned_child_holds_only_the_descriptors_meant_for_it() {
    // What this process was itself started with may be inherited; what it opens may not.
    let inherited = descriptors_of_a_child();
    assert!(inherited.is_superset(&["0", "1", "2"].map(str::to_owned).into()));

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (sender, mut receiver) = tunnel::wake::mailbox();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let (_dialled, _accepted) = (dialled.unwrap(), accepted.unwrap());
        let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let producer = std::thread::spawn(move || sender.send(1).unwrap());
        let mut out = VecDeque::new();
        receiver.drain(&mut out).await;
        producer.join().unwrap();

        assert_eq!(descriptors_of_a_child(), inherited);

        // The control: a descriptor that may be inherited is seen, so the comparison above can fail.
        raw.set_cloexec(false).unwrap();
        assert_eq!(descriptors_of_a_child().len(), inherited.len() + 1);
    });
}
