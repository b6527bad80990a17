//! A time server (NTP) that tells whatever time it is given.

use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds from 1900 to 1970.
const TO_1970: u64 = 2_208_988_800;

/// A running server; ends with its handle.
#[derive(Debug)]
pub struct TimeServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TimeServer {
    /// Serves at port 123 of `address`, in this thread's network, with a clock that is `ahead` of this machine's.
    pub fn start(address: &str, ahead: Duration) -> Result<Self> {
        let socket =
            UdpSocket::bind((address, 123)).with_context(|| format!("opening UDP port 123 on {address}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("time server".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = answer(&socket, ahead)
                    && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                {
                    eprintln!("time server: {error}");
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for TimeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Waits for one question and answers it (RFC 5905, section 7.3: version 4, mode 4, stratum 1).
fn answer(socket: &UdpSocket, ahead: Duration) -> std::io::Result<()> {
    let mut question = [0u8; 48];
    let (_, from) = socket.recv_from(&mut question)?;
    let now = (SystemTime::now() + ahead).duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    let stamp = ((now.as_secs() + TO_1970) << 32 | fraction).to_be_bytes();
    let mut packet = [0u8; 48];
    packet[..2].copy_from_slice(&[0x24, 1]);
    packet[24..32].copy_from_slice(&question[40..48]);
    packet[32..40].copy_from_slice(&stamp);
    packet[40..48].copy_from_slice(&stamp);
    socket.send_to(&packet, from).map(drop)
}
