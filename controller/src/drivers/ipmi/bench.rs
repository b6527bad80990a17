//! How much CPU the client needs for a thousand BMCs. Not part of a normal test run:
//! `cargo test -p ferric-controller --lib ipmi::bench -- --ignored --nocapture`

use super::test_bmc::{Rules, TestBmc, info};
use super::*;
use nix::time::{ClockId, clock_gettime};
use std::sync::mpsc;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

const BMCS_POLLED: usize = 1000;
/// Polls under way at once.
const AT_ONCE: usize = 64;

/// The client runs alone on this thread, so that the thread's clock counts the client and nothing else.
#[test]
#[ignore = "a measurement"]
fn a_thousand_bmcs_are_polled_within_a_core_and_a_minute() {
    let (ports_out, ports_in) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let bmcs = std::thread::spawn(move || {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut all = Vec::new();
            for _ in 0..BMCS_POLLED {
                all.push(TestBmc::start(Rules::default()).await);
            }
            ports_out.send(all.iter().map(|bmc| bmc.port).collect::<Vec<_>>()).unwrap();
            let _ = stopped.await;
        });
    });
    let ports = ports_in.recv().unwrap();
    let client = Builder::new_current_thread().enable_all().build().unwrap();
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let (before, start) = (cpu(), std::time::Instant::now());
    client.block_on(async {
        let ipmi = Arc::new(Ipmi::new(IpmiSettings::default()));
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let polls: Vec<_> = ports
            .into_iter()
            .map(|port| {
                let (ipmi, slots) = (Arc::clone(&ipmi), Arc::clone(&slots));
                tokio::spawn(async move {
                    let _slot = slots.acquire().await.unwrap();
                    ipmi.power_state(&info(port, "right")).await
                })
            })
            .collect();
        for poll in polls {
            poll.await.unwrap().unwrap();
        }
    });
    let (used, took) = (cpu() - before, start.elapsed());
    println!(
        "{BMCS_POLLED} BMCs polled once (suite 17, a session each): {used:?} of CPU, {took:?} on the clock"
    );
    let _ = stop.send(());
    bmcs.join().unwrap();
    assert!(used < Duration::from_secs(60), "one core must be enough for a poll a minute");
}
