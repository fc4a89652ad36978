//! The packet-level line itself: what it promises is what TCP meets on it. Needs root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use wanproxy_tests::packets::{FAR, From, NEAR, PacketLine, Settings};
use wanproxy_tests::skip;

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(60);

fn line(settings: Settings) -> Option<PacketLine> {
    if let Err(reason) = PacketLine::possible() {
        skip("a test on the packet-level line", &reason);
        return None;
    }
    match PacketLine::start(settings, 42) {
        Ok(line) => Some(line),
        Err(error) => panic!("the line could not be made: {error:#}"),
    }
}

fn listen(line: &PacketLine) -> Result<(TcpListener, SocketAddr)> {
    let listener = line.far().run(|| TcpListener::bind((FAR, 0)))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[test]
fn bytes_arrive_and_cost_what_the_counters_say() -> Result<()> {
    let Some(line) = line(Settings::default()) else {
        return Ok(());
    };
    let (listener, address) = listen(&line)?;
    let sent = vec![7; 1 << 20];
    let sender = thread::spawn(move || -> Result<Vec<u8>> {
        let mut received = Vec::new();
        listener.accept()?.0.read_to_end(&mut received)?;
        Ok(received)
    });
    let mut stream = line.near().run(|| TcpStream::connect(address))?;
    stream.write_all(&sent)?;
    drop(stream);
    let received = sender
        .join()
        .map_err(|_| anyhow::anyhow!("receiver panicked"))??;
    assert!(received == sent);
    let counters = line.counters(From::Near);
    let cost = counters.delivered_bytes;
    assert!(
        cost > sent.len() as u64 && cost < sent.len() as u64 * 11 / 10,
        "{counters:?}"
    );
    Ok(())
}

#[test]
fn a_round_trip_takes_both_delays() -> Result<()> {
    let delay = Duration::from_millis(30);
    let Some(line) = line(Settings {
        delay,
        ..Settings::default()
    }) else {
        return Ok(());
    };
    let far = line.far().run(|| UdpSocket::bind((FAR, 0)))?;
    let near = line.near().run(|| UdpSocket::bind((NEAR, 0)))?;
    let echo_address = far.local_addr()?;
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = [0; 64];
        let (length, from) = far.recv_from(&mut buffer)?;
        far.send_to(buffer.get(..length).unwrap_or_default(), from)?;
        Ok(())
    });
    let start = Instant::now();
    near.send_to(b"ping", echo_address)?;
    let mut buffer = [0; 64];
    assert_eq!(near.recv(&mut buffer)?, 4);
    // Never sooner; how much later depends on the machine.
    assert!(start.elapsed() >= 2 * delay, "{:?}", start.elapsed());
    echo.join()
        .map_err(|_| anyhow::anyhow!("echo panicked"))??;
    Ok(())
}

#[test]
fn a_rate_holds_back_and_a_full_queue_drops() -> Result<()> {
    const SENT: u64 = 100;
    let settings = Settings {
        rate_bits_per_s: Some(8_000_000),
        queue_bytes: 30_000,
        ..Settings::default()
    };
    let Some(line) = line(settings) else {
        return Ok(());
    };
    let far = line.far().run(|| UdpSocket::bind((FAR, 0)))?;
    let near = line.near().run(|| UdpSocket::bind((NEAR, 0)))?;
    let address = far.local_addr()?;
    let start = Instant::now();
    for _ in 0..SENT {
        near.send_to(&[0; 1000], address)?;
    }
    far.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = [0; 2000];
    let mut received = 0u32;
    let mut last = start;
    // Until each of them was dropped or has come, however long the line's thread is held up.
    let counters = loop {
        let counters = line.counters(From::Near);
        if u64::from(received) + counters.dropped >= SENT {
            break counters;
        }
        assert!(start.elapsed() < LIMIT, "{received} came: {counters:?}");
        if far.recv(&mut buffer).is_ok() {
            received += 1;
            last = Instant::now();
        }
    };
    assert!(counters.dropped > 0, "{counters:?}");
    assert_eq!(u64::from(received), counters.delivered);
    // 1,028 bytes at a million bytes a second each: never sooner.
    assert!(last - start >= Duration::from_micros(1028) * received);
    Ok(())
}

#[test]
fn a_cut_is_silent_and_tcp_goes_on_behind_it() -> Result<()> {
    let Some(line) = line(Settings::default()) else {
        return Ok(());
    };
    let (listener, address) = listen(&line)?;
    let mut near = line.near().run(|| TcpStream::connect(address))?;
    let (mut far, _) = listener.accept()?;
    line.cut();
    near.write_all(b"held")?;
    let written = Instant::now();
    while line.counters(From::Near).cut == 0 {
        assert!(written.elapsed() < LIMIT, "nothing came to the cut");
        thread::sleep(Duration::from_millis(5));
    }
    far.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut buffer = [0; 4];
    assert!(far.read_exact(&mut buffer).is_err(), "nothing passes");
    line.restore();
    far.set_read_timeout(Some(LIMIT))?;
    far.read_exact(&mut buffer)?;
    assert_eq!(&buffer, b"held");
    Ok(())
}

#[test]
fn what_it_made_is_gone_afterwards() -> Result<()> {
    let Some(line) = line(Settings::default()) else {
        return Ok(());
    };
    let names = [line.near().name().to_owned(), line.far().name().to_owned()];
    let listed = || -> Result<String> {
        let output = std::process::Command::new("ip")
            .args(["netns", "list"])
            .output()?;
        Ok(String::from_utf8(output.stdout)?)
    };
    assert!(
        names
            .iter()
            .all(|name| listed().is_ok_and(|list| list.contains(name)))
    );
    drop(line);
    let list = listed()?;
    assert!(names.iter().all(|name| !list.contains(name)), "{list}");
    Ok(())
}
